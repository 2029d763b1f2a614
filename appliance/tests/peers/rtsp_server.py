#!/usr/bin/python3
"""A small RTSP server for tests.

usage: rtsp_server.py [--user NAME --password TEXT [--tls CERT.pem KEY.pem]]
                      (--launch LINE | --file FILE.mkv [--codec h264|h265] [--audio])

Listens on 127.0.0.1, on a port that the kernel chooses, and prints "port N" when it is ready. The stream is at /main
and starts from its beginning for each client. Ends when its standard input is closed, so that it never outlives the
test that started it.
"""
import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtspServer  # noqa: E402


def launch_line(args):
    if args.launch:
        return args.launch
    payloader = {"h264": "rtph264pay", "h265": "rtph265pay"}[args.codec]
    line = (
        f"filesrc location={args.file} ! matroskademux name=d "
        f"d. ! queue ! {args.codec}parse ! {payloader} name=pay0 pt=96 config-interval=-1"
    )
    if args.audio:
        line += " d. ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97"
    return f"( {line} )"


def demand_password(server, factory, args):
    auth = GstRtspServer.RTSPAuth.new()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    if args.tls:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(*args.tls))
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(args.user, args.password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--launch")
    parser.add_argument("--file")
    parser.add_argument("--codec", default="h264", choices=["h264", "h265"])
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--tls", nargs=2)
    args = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(launch_line(args))
    factory.set_shared(False)
    if args.user:
        demand_password(server, factory, args)
    server.get_mount_points().add_factory("/main", factory)
    server.attach(None)

    loop = GLib.MainLoop()

    def gone(channel, condition):
        loop.quit()
        return False

    GLib.io_add_watch(GLib.IOChannel.unix_new(sys.stdin.fileno()), GLib.IO_IN | GLib.IO_HUP, gone)
    print(f"port {server.get_bound_port()}", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
