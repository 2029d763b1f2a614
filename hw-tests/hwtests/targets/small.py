"""The small guest of scripts/guest in QEMU: no image is needed, its program is this machine's own."""

import pathlib
import time

from hwtests import guest
from hwtests.case import check
from hwtests.gateway import Api
from hwtests.targets import Target, begun_by_uptime

# Debian's user `nobody` in its groups `video` and `audio`, without capabilities.
OWNER = 65534
AS_SERVICE = f"setpriv --reuid {OWNER} --regid {OWNER} --groups 44,29 --bounding-set -all --no-new-privs --"
STATE = "/run/state/gateway"


class GuestShell:
    def __init__(self, one: guest.Guest):
        self.run = one.run

    def close(self):
        pass


class Small(Target):
    patience = 180
    here = "10.0.2.2"
    rtmp_config = {"listen": ["0.0.0.0:1935"]}
    has_network = False
    sizes = ((640, 360, 5),)
    camera_wish = {"width": 320, "height": 180, "frame_rate": 10, "bitrate": 300_000, "keyframe_interval": "1s"}

    def __init__(self, program: pathlib.Path, work: pathlib.Path, fresh: bool):
        self.program, self.parts = program.resolve(), guest.parts()
        self.disk, self.console, self.notes = work / "hw-tests.img", work / "hw-tests.log", work / "hw-tests.json"
        self.one: guest.Guest | None = None
        if fresh or not self.disk.exists():
            guest.new_disk(self.disk, OWNER)

    def about(self) -> dict:
        return {"kind": "qemu", "machine": "x86-64 q35 by emulation, 2 cores, 1 GiB; the small guest, as no image was given",
                "kernel": self.parts["release"], "program": str(self.program), "console": str(self.console)}

    def lacks(self, need: str) -> str | None:
        return {"stick": "the small guest has no slots and takes no updates",
                "systemd": "the small guest has no systemd"}.get(need)

    @property
    def page(self) -> str:
        return f"https://localhost:{self.one.page}"

    @property
    def rtmp(self) -> str:
        return f"rtmp://127.0.0.1:{self.one.rtmp}/live"

    def on(self):
        self.one = guest.Guest(self.parts["kernel"], self.parts["initrd"], self.disk, self.console, self.patience)
        # What systemd does elsewhere.
        self.one.run(f"chmod 755 /run/state; (while :; do {AS_SERVICE} {self.program} run --state {STATE} >/run/gateway.out 2>>/run/gateway.log; sleep 1; done) "
                     "</dev/null >/dev/null 2>&1 &")

    def cut(self):
        self.one.cut()

    def running(self):
        # A case that failed may have left it dark.
        if self.one is None or self.one.process.poll() is not None:
            self.on()
        try:
            Api(self.page).healthy(self.patience)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.one.run('tail -n 20 /run/gateway.log')}") from error

    def kernel_began(self) -> float:
        return begun_by_uptime(self.one, time.monotonic())

    def is_as_flashed(self) -> dict:
        self.claim_code()
        return {}

    def claim_code(self) -> str:
        code = self.one.run(f"{AS_SERVICE} {self.program} claim-code --state {STATE}").split()[-1]
        check(len(code) > 7, f"the claim code is {code!r}")
        return code

    def shell(self) -> GuestShell:
        return GuestShell(self.one)

    def bring_cameras(self):
        """A camera of the kernel's test driver, in the manner of a USB webcam."""
        self.one.run("[ -e /dev/video0 ] || insmod /run/modules/vivid.ko n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0")
        self.one.run("for file in /dev/video*; do chgrp 44 $file && chmod 660 $file || exit 1; done")

    def end(self):
        if self.one:
            self.one.cut()
