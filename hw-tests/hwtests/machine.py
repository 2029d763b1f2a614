"""A gateway of the image in QEMU, by emulation: started, watched on its console, its power cut.

Used by scripts/run-image and by the target `qemu` of scripts/hw-tests.
"""

import atexit
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from hwtests.gateway import Api

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FIRMWARE = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"
MEDIUM_MIB = 2048


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def new_disk(image: pathlib.Path, disk: pathlib.Path):
    """A medium of 2 GiB that was just flashed."""
    disk.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=always", image, disk], check=True)
    with disk.open("r+b") as file:
        file.truncate(MEDIUM_MIB << 20)


def stick(folder: pathlib.Path, bundle: pathlib.Path) -> pathlib.Path:
    """A USB stick labelled FIELDGATE with that bundle."""
    image = folder / f"stick-{bundle.stem}.img"
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(bundle.stat().st_size + (64 << 20))
    subprocess.run(["mkfs.vfat", "-F", "32", "-n", "FIELDGATE", image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mcopy", "-i", image, bundle, "::fieldgate.raucb"], check=True)
    return image


def raspberry_pi(disk: pathlib.Path) -> list[str]:
    """QEMU as a Raspberry Pi 3B, the nearest to the 4 that it has, after the firmware's part: U-Boot is in memory, with the
    device tree of this board. The console is the second serial port."""
    work = disk.parent.parent
    uboot = disk.parent / "u-boot.bin"
    # The firmware partition begins at 4 MiB.
    subprocess.run(["mcopy", "-n", "-o", "-i", f"{disk}@@4M", "::u-boot.bin", uboot], check=True)
    whole, = work.glob("kernel/usr/lib/linux-image-*/broadcom/bcm2837-rpi-3-b.dtb")
    # To start this board's watchdog is to QEMU what restarting the board is; so the kernel does not find it.
    tree = disk.parent / "tree.dtb"
    tree.write_bytes(whole.read_bytes().replace(b"brcm,bcm2835-pm", b"none,bcm2835-pm"))
    return ["-M", "raspi3b", "-accel", "tcg,thread=multi", "-kernel", str(uboot), "-dtb", str(tree),
            "-drive", f"file={disk},if=sd,format=raw,cache=writeback", "-serial", "null", "-device", "usb-net,netdev=net"]


class Machine:
    """One run of QEMU on a disk; ports are the host's. Each write of the disk is noted in `writes`, where that is given, in
    the format of Linux' dm-log-writes. The board is one of build-image's; all but `virt` have no more than disk and network."""

    def __init__(self, disk: pathlib.Path, log: pathlib.Path, writes: pathlib.Path | None = None, board: str = "virt"):
        self.sockets = tempfile.TemporaryDirectory()
        self.control = pathlib.Path(self.sockets.name) / "qmp"
        # Nothing listens there but what build-image --trial puts in.
        self.shell = pathlib.Path(self.sockets.name) / "shell"
        self.plugged = 0
        self.page, self.rtmp, self.log = free_port(), free_port(), log
        medium = ["-drive", f"file={disk},if=none,id=disk,format=raw,cache=writeback"]
        if writes:
            writes.write_bytes(b"")
            # What this machine itself would lose in a power cut is of no matter.
            for name, file in (("medium", disk), ("notes", writes)):
                medium[:0] = ["-blockdev", f"driver=file,node-name={name},filename={file},cache.no-flush=on"]
            medium[4:] = ["-blockdev", "driver=blklogwrites,node-name=disk,file=medium,log=notes,log-sector-size=512"]
        # A processor whose kernel need not keep two page tables: by emulation each system call would empty QEMU's own.
        virt = [
            "-M", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024",
            "-bios", FIRMWARE, "-device", "i6300esb", "-action", "watchdog=reset",
            *medium, "-device", "virtio-blk-pci,drive=disk",
            "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=shell,path={self.shell},server=on,wait=off",
            "-device", "virtconsole,chardev=shell", "-device", "qemu-xhci,id=usb",
        ]
        command = [
            "qemu-system-aarch64", "-display", "none", "-monitor", "none", "-qmp", f"unix:{self.control},server=on,wait=off",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.page}-:8443,hostfwd=tcp:127.0.0.1:{self.rtmp}-:1935",
            *(raspberry_pi(disk) if board == "raspberrypi4" else virt), "-serial", "stdio",
        ]
        self.lines: list[tuple[float, str]] = []
        self.began = time.monotonic()
        self.arrived = threading.Condition()
        self.output = log.open("a")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        # Also when this program is told to end.
        atexit.register(self.cut)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        for raw in self.process.stdout:
            line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x00]", "", raw.decode(errors="replace")).rstrip()
            if not line:
                continue
            with self.arrived:
                self.lines.append((time.monotonic() - self.began, line))
                self.output.write(f"{self.lines[-1][0]:8.1f} {line}\n")
                self.output.flush()
                self.arrived.notify_all()

    def said(self, pattern: str, patience: float, since: int = 0) -> tuple[float, str]:
        """Waits for a line of the console; when it came, and its match."""
        deadline = time.monotonic() + patience
        with self.arrived:
            at = since
            while True:
                while at < len(self.lines):
                    when, line = self.lines[at]
                    at += 1
                    if found := re.search(pattern, line):
                        return when, found[0]
                left = deadline - time.monotonic()
                if left <= 0 or not self.arrived.wait(left):
                    tail = "\n".join(line for _, line in self.lines[-15:])
                    raise TimeoutError(f"the console did not say /{pattern}/ within {patience:.0f} s; it ended with:\n{tail}")

    def mark(self) -> int:
        """Where the console is now, for `said`."""
        with self.arrived:
            return len(self.lines)

    def healthy(self, patience: float) -> float:
        """Waits until the gateway answers on its page's port; when, after the start."""
        return Api(f"https://localhost:{self.page}").healthy(patience) - self.began

    def command_qemu(self, *commands: dict):
        """Says this to QEMU itself, and ends on its first refusal."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(30)
            line.connect(str(self.control))
            answers = line.makefile("rb")
            answers.readline()
            for command in ({"execute": "qmp_capabilities"}, *commands):
                line.sendall(json.dumps(command).encode())
                while True:
                    answer = json.loads(answers.readline())
                    if "error" in answer:
                        raise RuntimeError(f"QEMU refuses {command}: {answer['error']}")
                    if "return" in answer:
                        break

    def plug(self, stick: pathlib.Path):
        """Plugs a USB stick in."""
        self.plugged += 1
        name = f"stick{self.plugged}"
        self.command_qemu(
            {"execute": "blockdev-add", "arguments": {
                "driver": "raw", "node-name": name, "read-only": True,
                "file": {"driver": "file", "filename": str(stick), "read-only": True}}},
            {"execute": "device_add", "arguments": {"driver": "usb-storage", "id": f"{name}d", "drive": name, "bus": "usb.0"}})

    def unplug(self):
        """Takes the last stick out again."""
        self.command_qemu({"execute": "device_del", "arguments": {"id": f"stick{self.plugged}d"}})

    def cut(self):
        """The power is gone, at once."""
        self.process.kill()
        self.process.wait()
