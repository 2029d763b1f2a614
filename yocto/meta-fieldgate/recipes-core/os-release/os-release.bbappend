# What updates are compared with: the version that runs, and the kind of machine as RAUC's settings have it.
OS_RELEASE_FIELDS:append:fieldgate = " IMAGE_ID IMAGE_VERSION"
IMAGE_ID:fieldgate = "fieldgate-${MACHINE}"
IMAGE_VERSION:fieldgate = "${DISTRO_VERSION}"
PACKAGE_ARCH:fieldgate = "${MACHINE_ARCH}"
