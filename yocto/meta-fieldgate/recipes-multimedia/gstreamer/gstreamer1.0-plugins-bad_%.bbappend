# faad, resindvd and x265 are its GPL parts and stay off.
PACKAGECONFIG:fieldgate = "${GSTREAMER_ORC} openh264 opusparse v4l2codecs voaacenc"
