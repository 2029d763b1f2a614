FILESEXTRAPATHS:prepend:fieldgate := "${FIELDGATE_LAYERDIR}/recipes-kernel/linux/files:"

SRC_URI:append:fieldgate = " \
    file://board.cfg \
    file://fieldgate.cfg \
"
