SUMMARY = "The gateway as an image: read-only verified root, A/B slots, no logins"
DESCRIPTION = "Two slots of kernel and squashfs root under dm-verity, updated by RAUC; one \
partition for all that lasts. Nobody can log in: the gateway is managed through its own page and API."
LICENSE = "Apache-2.0"

inherit core-image fieldgate_slot

IMAGE_FEATURES = "read-only-rootfs"
IMAGE_LINGUAS = ""
IMAGE_INSTALL = "\
    fieldgate \
    fieldgate-system \
    libubootenv-bin \
    netbase \
    packagegroup-core-boot \
    rauc \
    rauc-mark-good \
    tzdata-core \
    u-boot-env \
    ${MACHINE_EXTRA_RRECOMMENDS} \
"

# Slot sizes are what counts (FIELDGATE_ROOT_MB); a squashfs needs no room to spare.
IMAGE_OVERHEAD_FACTOR = "1.0"
IMAGE_ROOTFS_EXTRA_SPACE = "0"

ROOTFS_POSTPROCESS_COMMAND += "fieldgate_no_logins"

# Nobody sits at the console: no login there, and what would wait for somebody starts the machine again instead, so that
# the boot loader's count of tries goes on.
fieldgate_no_logins () {
    units=${IMAGE_ROOTFS}${sysconfdir}/systemd/system
    install -d $units
    for unit in getty@.service serial-getty@.service console-getty.service debug-shell.service; do
        ln -sf /dev/null $units/$unit
    done
    for target in emergency.target rescue.target; do
        ln -sf ${systemd_system_unitdir}/reboot.target $units/$target
    done
}
