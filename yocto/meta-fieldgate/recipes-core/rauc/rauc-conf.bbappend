FILESEXTRAPATHS:prepend:fieldgate := "${THISDIR}/files:"

RAUC_KEYRING_FILE:fieldgate = "keyring.pem"
RAUC_KEYRING_URI:fieldgate = "file://${FIELDGATE_KEYS}/keyring.pem"

PACKAGE_ARCH:fieldgate = "${MACHINE_ARCH}"

do_install:append:fieldgate () {
    sed -i -e 's/@MACHINE@/${MACHINE}/' ${D}${sysconfdir}/rauc/system.conf
}
