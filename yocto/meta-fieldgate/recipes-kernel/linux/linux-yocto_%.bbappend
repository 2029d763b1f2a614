FILESEXTRAPATHS:prepend:fieldgate := "${THISDIR}/files:"

SRC_URI:append:fieldgate = " \
    file://board.cfg \
    file://fieldgate.cfg \
"
