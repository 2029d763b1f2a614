//! What the tests of all parts share.

pub(crate) mod golden;
