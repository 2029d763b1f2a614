# libudev is how V4L2 encoders and decoders are found (gudev).
PACKAGECONFIG:fieldgate = "${GSTREAMER_ORC} gudev jpeg v4l2"
