"""The firmware image in QEMU, by emulation: its power is cut by ending QEMU, its console is a serial port."""

import pathlib
import re
import subprocess
import time

from hwtests import machine
from hwtests.case import check
from hwtests.shell import Shell
from hwtests.targets import Target

# What the boot loader says before it reads the kernel, and its last word.
LOADER = r"slot [AB] of primary [AB], tries left A \d B \d"
KERNEL = r"kernel and initrd are read"
# Emulation, on a machine that may be busy.
BOOT = 600


class Image(Target):
    patience = 900
    # As the guest's network calls it.
    here = "10.0.2.2"
    rtmp_config = {"listen": ["0.0.0.0:1935"]}
    has_network = False
    # What an emulated machine manages.
    sizes = ((320, 180, 10), (640, 360, 5))
    camera_wish = {"width": 320, "height": 180, "frame_rate": 10, "bitrate": 300_000, "keyframe_interval": "1s"}

    def __init__(self, image: pathlib.Path, fresh: bool):
        self.image, self.work = image, image.parent
        self.disk, self.log = self.work / "trial.img", self.work / "trial.log"
        self.notes = self.work / "trial.json"
        self.gateway: machine.Machine | None = None
        # Whether what runs came from a bundle with a shell in it; None when it must be asked.
        self.has_shell: bool | None = None
        if fresh or not self.disk.exists():
            self.log.unlink(missing_ok=True)
            machine.new_disk(image, self.disk)
            self.has_shell = False

    def about(self) -> dict:
        return {"kind": "qemu", "machine": "arm64 virt by emulation, 2 cores, 1 GiB", "image": str(self.image),
                "console": str(self.log)}

    def lacks(self, need: str) -> str | None:
        if need in ("shell", "cameras"):
            return None if self.shell_answers() else "the image has no shell until the case update has put one in"
        if need == "stick" and not (self.work / "fieldgate.raucb").exists():
            return f"there is no {self.work / 'fieldgate.raucb'}; scripts/build-image makes it with the image"
        return None

    def shell_answers(self) -> bool:
        if self.has_shell is None:
            self.running()
            try:
                self.shell(30).close()
                self.has_shell = True
            except TimeoutError:
                self.has_shell = False
        return self.has_shell

    @property
    def page(self) -> str:
        return f"https://localhost:{self.gateway.page}"

    @property
    def rtmp(self) -> str:
        return f"rtmp://127.0.0.1:{self.gateway.rtmp}/live"

    # Power.

    def on(self):
        self.gateway = machine.Machine(self.disk, self.log)

    def cut(self):
        """The power is gone, at once."""
        self.gateway.cut()

    def running(self):
        # A case that failed may have left it dark.
        if self.gateway is None or self.gateway.process.poll() is not None:
            self.on()
        self.gateway.healthy(self.patience)

    def kernel_began(self) -> float:
        """The boot loader's last word, as the kernel itself is quiet."""
        self.gateway.said(KERNEL, BOOT)
        with self.gateway.arrived:
            return self.gateway.began + max(when for when, line in self.gateway.lines if re.search(KERNEL, line))

    def end(self):
        if self.gateway:
            self.gateway.cut()

    # Its console and its only USB socket.

    def is_as_flashed(self) -> dict:
        _, slot = self.gateway.said(LOADER, BOOT)
        check(slot.startswith("slot A"), slot)
        self.claim_code()
        return {"slot": slot}

    def claim_code(self) -> str:
        return self.gateway.said(r"claim code \S+", BOOT)[1].split()[-1]

    def shell(self, patience: float = BOOT) -> Shell:
        return Shell(self.gateway.shell, patience)

    def bring_cameras(self):
        """A camera of the kernel's test driver."""
        shell = self.shell()
        try:
            if shell.run("ls /dev/video0 2>/dev/null || true") == "":
                shell.run("modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0")
            shell.run("udevadm settle && ls -l /dev/video0")
        finally:
            shell.close()

    def bundle(self, version: str, *more) -> pathlib.Path:
        """An update with a shell inside; made anew when the image is newer."""
        made = self.work / f"{version}.raucb"
        if not made.exists() or made.stat().st_mtime < self.image.stat().st_mtime:
            subprocess.run([machine.ROOT / "scripts/build-image", "--trial", made, "--version", version, *more],
                           cwd=machine.ROOT, check=True, capture_output=True, text=True)
        return made

    def install(self, version: str, *more) -> tuple[int, float]:
        """Plugs a stick with it in and waits until it is installed; the console's mark before that, and how long."""
        stick = machine.stick(self.work, self.bundle(version, *more))
        self.running()
        since, began = self.gateway.mark(), time.monotonic()
        self.has_shell = None
        self.gateway.plug(stick)
        self.gateway.said(rf"update: version {version} is installed", self.patience, since)
        return since, round(time.monotonic() - began, 1)

    def refused(self, bundle: pathlib.Path, why: str) -> str:
        since = self.gateway.mark()
        self.gateway.plug(machine.stick(self.work, bundle))
        _, said = self.gateway.said(r"update: refused: .*", BOOT, since)
        self.gateway.unplug()
        check(why in said.lower(), said)
        return said
