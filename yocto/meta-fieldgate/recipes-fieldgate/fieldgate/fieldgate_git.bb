SUMMARY = "Camera gateway: takes local cameras in and relays them upstream"
DESCRIPTION = "Takes pictures and sound from local cameras, network cameras and RTMP \
encoders, keeps one live stream per mountpoint, and relays each to RTMP players and to \
RTMP and KMP upstreams."
SECTION = "multimedia"
CVE_PRODUCT = "fieldgate"

require fieldgate-source.inc
require fieldgate-crates.inc

inherit cargo pkgconfig systemd useradd

CARGO_SRC_DIR = "appliance"
CARGO_BUILD_FLAGS += "${@bb.utils.contains('PACKAGECONFIG', 'cameras', '', '--no-default-features', d)}"
# bitbake strips, and keeps the symbols in the -dbg package.
export CARGO_PROFILE_RELEASE_STRIP = "none"
export CARGO_PROFILE_RELEASE_DEBUG = "line-tables-only"

PACKAGECONFIG ??= "cameras files aac openh264 v4l2-stateless"
# Workers with GStreamer: local cameras, RTSP, encoders. Without it the gateway only relays.
PACKAGECONFIG[cameras] = ",,gstreamer1.0 gstreamer1.0-plugins-base,${FIELDGATE_GST}"
# Recordings as sources.
PACKAGECONFIG[files] = ",,,\
    gstreamer1.0-plugins-bad-mpegtsdemux \
    gstreamer1.0-plugins-good-flv \
    gstreamer1.0-plugins-good-isomp4 \
    gstreamer1.0-plugins-good-matroska \
"
# Encoders in software: AAC (Apache-2.0) and H.264 (BSD; whoever ships it answers for the patents).
PACKAGECONFIG[aac] = ",,,gstreamer1.0-plugins-bad-voaacenc"
PACKAGECONFIG[openh264] = ",,,gstreamer1.0-plugins-bad-openh264"
# Decoders of boards whose kernels leave the parsing to programs.
PACKAGECONFIG[v4l2-stateless] = ",,,gstreamer1.0-plugins-bad-v4l2codecs"
# H.265 in software (LGPL), and gateways with an Intel or AMD GPU; each needs the plugin to be switched on, too.
PACKAGECONFIG[libde265] = ",,,gstreamer1.0-plugins-bad-de265"
PACKAGECONFIG[va] = ",,,gstreamer1.0-plugins-bad-va"
# CSI cameras; the machine's libcamera must be built with its GStreamer element, too.
PACKAGECONFIG[libcamera] = ",,,libcamera-gst"

# The plugins of the program's own list (appliance/crates/gst/src/elements.rs); scripts/check holds the two together.
FIELDGATE_GST = "\
    gstreamer1.0 \
    gstreamer1.0-plugins-bad-opusparse \
    gstreamer1.0-plugins-bad-videoparsersbad \
    gstreamer1.0-plugins-base-alsa \
    gstreamer1.0-plugins-base-app \
    gstreamer1.0-plugins-base-audioconvert \
    gstreamer1.0-plugins-base-audioresample \
    gstreamer1.0-plugins-base-audiotestsrc \
    gstreamer1.0-plugins-base-opus \
    gstreamer1.0-plugins-base-videoconvertscale \
    gstreamer1.0-plugins-base-videotestsrc \
    gstreamer1.0-plugins-base-volume \
    gstreamer1.0-plugins-good-alaw \
    gstreamer1.0-plugins-good-audioparsers \
    gstreamer1.0-plugins-good-jpeg \
    gstreamer1.0-plugins-good-mulaw \
    gstreamer1.0-plugins-good-rtp \
    gstreamer1.0-plugins-good-rtpmanager \
    gstreamer1.0-plugins-good-rtsp \
    gstreamer1.0-plugins-good-udp \
    gstreamer1.0-plugins-good-video4linux2 \
"

SYSTEMD_SERVICE:${PN} = "fieldgate.service fieldgate-system-helper.socket fieldgate-timesync.path fieldgate-restart.path"

# The same user as in systemd/fieldgate.sysusers.conf: a read-only root must have it from the start.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system video; --system render; --system audio; --system fieldgate"
USERADD_PARAM:${PN} = "\
    --system --gid fieldgate --groups video,render,audio \
    --home-dir ${localstatedir}/lib/fieldgate --no-create-home --shell /sbin/nologin fieldgate \
"

do_install:append () {
    install -D -m 0644 ${S}/systemd/fieldgate.service ${D}${systemd_system_unitdir}/fieldgate.service
    install -D -m 0644 ${S}/systemd/fieldgate-system-helper.socket ${D}${systemd_system_unitdir}/fieldgate-system-helper.socket
    install -D -m 0644 ${S}/systemd/fieldgate-system-helper@.service ${D}${systemd_system_unitdir}/fieldgate-system-helper@.service
    install -D -m 0644 ${S}/systemd/fieldgate-timesync.path ${D}${systemd_system_unitdir}/fieldgate-timesync.path
    install -D -m 0644 ${S}/systemd/fieldgate-timesync.service ${D}${systemd_system_unitdir}/fieldgate-timesync.service
    install -D -m 0644 ${S}/systemd/fieldgate-restart.path ${D}${systemd_system_unitdir}/fieldgate-restart.path
    install -D -m 0644 ${S}/systemd/fieldgate.sysusers.conf ${D}${nonarch_libdir}/sysusers.d/fieldgate.conf
    install -D -m 0644 ${S}/systemd/fieldgate.tmpfiles.conf ${D}${nonarch_libdir}/tmpfiles.d/fieldgate.conf
    install -D -m 0644 ${S}/systemd/fieldgate.sysctl.conf ${D}${nonarch_libdir}/sysctl.d/50-fieldgate.conf
    install -D -m 0644 ${S}/README.md ${D}${docdir}/fieldgate/README.md
}

FILES:${PN} += "\
    ${systemd_system_unitdir}/fieldgate-system-helper@.service \
    ${systemd_system_unitdir}/fieldgate-timesync.service \
    ${nonarch_libdir}/sysusers.d \
    ${nonarch_libdir}/tmpfiles.d \
    ${nonarch_libdir}/sysctl.d \
"
