# What the program's list of elements needs, nothing that draws.
PACKAGECONFIG:fieldgate = "${GSTREAMER_ORC} alsa opus"
