//! Fuzz targets: plain functions that take any bytes and must return.
