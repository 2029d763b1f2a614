SUMMARY = "U-Boot script that chooses and boots a slot"
DESCRIPTION = "Counts tries as RAUC expects, and hands the slot's dm-verity figures to the kernel."
SECTION = "bootloaders"
LICENSE = "Apache-2.0"
# nooelint: oelint.var.licenseremotefile - the script is in this layer, its licence text in oe-core
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

DEPENDS = "u-boot-mkimage-native"
PROVIDES += "u-boot-default-script"

SRC_URI = "file://boot.cmd"

S = "${UNPACKDIR}"

inherit deploy nopackages

PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_install[noexec] = "1"

do_compile () {
    mkimage -A arm64 -T script -C none -n fieldgate -d ${S}/boot.cmd ${B}/boot.scr
}

do_deploy () {
    install -m 0644 ${B}/boot.scr ${DEPLOYDIR}/boot.scr
}
addtask deploy after do_compile before do_build
