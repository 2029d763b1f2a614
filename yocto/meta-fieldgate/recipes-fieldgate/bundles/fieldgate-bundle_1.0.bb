# nooelint: oelint.var.mandatoryvar.SRC_URI - it is made of what the image recipe deploys
SUMMARY = "Update bundle for RAUC: one slot's kernel and root, signed"
DESCRIPTION = "Signed with the key of FIELDGATE_KEYS (see scripts/make-keys of this layer), in the \
verity format: checked block by block while it is installed, also over the network."
LICENSE = "Apache-2.0"

inherit bundle

RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_COMPATIBLE = "fieldgate-${MACHINE}"
RAUC_BUNDLE_VERSION = "${DISTRO_VERSION}"
RAUC_BUNDLE_DESCRIPTION = "fieldgate ${DISTRO_VERSION} for ${MACHINE}"

RAUC_BUNDLE_SLOTS = "boot rootfs"
RAUC_SLOT_boot = "fieldgate-image"
RAUC_SLOT_boot[file] = "fieldgate-image${IMAGE_MACHINE_SUFFIX}${IMAGE_NAME_SUFFIX}.boot.vfat"
RAUC_SLOT_boot[rename] = "boot.img"
RAUC_SLOT_rootfs = "fieldgate-image"
RAUC_SLOT_rootfs[file] = "fieldgate-image${IMAGE_MACHINE_SUFFIX}${IMAGE_NAME_SUFFIX}.squashfs-zst.slot"
RAUC_SLOT_rootfs[rename] = "root.img"

RAUC_KEY_FILE = "${FIELDGATE_BUNDLE_KEY}"
RAUC_CERT_FILE = "${FIELDGATE_KEYS}/bundle.cert.pem"
RAUC_KEYRING_FILE = "${FIELDGATE_KEYS}/keyring.pem"
