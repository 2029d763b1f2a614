SUMMARY = "What an image adds to fieldgate: data partition, watchdog, journal, network"
DESCRIPTION = "Installs what fieldgate's repository has in systemd/image; the README there tells of each file."
SECTION = "base"

require recipes-fieldgate/fieldgate/fieldgate-source.inc

inherit systemd

# Further mount units of the board.
FIELDGATE_UNITS ??= ""

SYSTEMD_SERVICE:${PN} = "data.mount fieldgate-console.service fieldgate-machine-id.service var-lib.mount ${FIELDGATE_UNITS}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install () {
    image=${S}/systemd/image
    install -d ${D}/data
    for unit in ${SYSTEMD_SERVICE:${PN}}; do
        install -D -m 0644 $image/$unit ${D}${systemd_system_unitdir}/$unit
    done
    install -D -m 0644 $image/repart-data.conf ${D}${nonarch_libdir}/repart.d/50-data.conf
    for daemon in system journald resolved timesyncd; do
        install -D -m 0644 $image/$daemon.conf ${D}${systemd_unitdir}/$daemon.conf.d/50-fieldgate.conf
    done
    install -D -m 0644 $image/wired.network ${D}${systemd_unitdir}/network/80-fieldgate-wired.network
    install -D -m 0644 $image/check-data.conf \
        ${D}${systemd_system_unitdir}/systemd-fsck@.service.d/50-fieldgate.conf
    install -D -m 0644 $image/rauc-mark-good.conf \
        ${D}${systemd_system_unitdir}/rauc-mark-good.service.d/50-fieldgate.conf
    install -m 0644 ${S}/scripts/image/fieldgate-update@.service \
        ${D}${systemd_system_unitdir}/fieldgate-update@.service
    install -D -m 0644 ${S}/scripts/image/fieldgate-update.rules \
        ${D}${nonarch_libdir}/udev/rules.d/70-fieldgate-update.rules
    install -D -m 0755 ${S}/scripts/image/update-from-medium \
        ${D}${nonarch_libdir}/fieldgate/update-from-medium
}

FILES:${PN} += "\
    /data \
    ${nonarch_libdir}/fieldgate \
    ${nonarch_libdir}/repart.d \
    ${nonarch_libdir}/udev/rules.d \
    ${systemd_system_unitdir} \
    ${systemd_unitdir} \
"

# coreutils: busybox may come without timeout.
RDEPENDS:${PN} += "coreutils e2fsprogs-e2fsck e2fsprogs-mke2fs rauc util-linux-flock"
