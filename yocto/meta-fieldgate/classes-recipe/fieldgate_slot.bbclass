# Makes the partitions of a slot from an image's squashfs root, for the card (wic) and for update bundles:
#
#   IMAGE_LINK_NAME.squashfs-zst.slot   the root and its dm-verity tree
#   IMAGE_LINK_NAME.boot.vfat           the kernel and the figures of that tree
#
# All the work is in scripts/make-slot, which runs, and is tested, without bitbake.

CONVERSIONTYPES += "slot"
# nooelint: oelint.vars.specific - the name of a conversion, not an override
CONVERSION_CMD:slot = "fieldgate_make_slot ${type}"
CONVERSION_DEPENDS_slot = "cryptsetup-native dosfstools-native mtools-native"
IMAGE_TYPES += "squashfs-zst.slot"
# nooelint: oelint.vars.specific - the name of an image type
IMAGE_TYPEDEP:wic = "squashfs-zst.slot"

do_image_squashfs_zst[depends] += "virtual/kernel:do_deploy"
do_image_squashfs_zst[file-checksums] += "${FIELDGATE_LAYERDIR}/scripts/make-slot:True"
do_image_wic[depends] += "\
    fieldgate-boot-script:do_deploy \
    virtual/bootloader:do_deploy \
    virtual/kernel:do_deploy \
"

fieldgate_make_slot () {
    ${FIELDGATE_LAYERDIR}/scripts/make-slot \
        ${IMAGE_NAME}.$1 ${DEPLOY_DIR_IMAGE}/${KERNEL_IMAGETYPE} \
        ${IMAGE_NAME}.$1.slot ${IMAGE_LINK_NAME}.boot.vfat \
        ${FIELDGATE_BOOT_MB} ${REPRODUCIBLE_TIMESTAMP_ROOTFS}

    size=$(stat --format=%s ${IMAGE_NAME}.$1.slot)
    limit=$(expr ${FIELDGATE_ROOT_MB} \* 1048576)
    if [ $size -gt $limit ]; then
        bbfatal "the root of $size bytes does not fit its slot of $limit bytes (FIELDGATE_ROOT_MB)"
    fi
}
