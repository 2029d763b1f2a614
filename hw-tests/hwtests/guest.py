"""The small guest of scripts/guest in QEMU, by emulation: Debian's kernel, this machine's programs, a disk that lasts."""

import atexit
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

from hwtests.machine import ROOT, free_port

DISK_MIB = 64


def parts() -> dict[str, str]:
    """Gets kernel and initrd ready; says why where that fails."""
    done = subprocess.run([ROOT / "scripts/guest", "kernel"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def new_disk(disk: pathlib.Path, owner: int):
    """An empty file system, for the gateway's state."""
    with disk.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", "-E", f"root_owner={owner}:{owner}", disk], check=True)


class Guest:
    """One run of QEMU; obeys one command after the other. Ports are the host's."""

    def __init__(self, kernel: str, initrd: str, disk: pathlib.Path, console: pathlib.Path, patience: float):
        self.folder = tempfile.TemporaryDirectory()
        self.page, self.rtmp, self.number, self.console = free_port(), free_port(), 0, console
        port = pathlib.Path(self.folder.name) / "port"
        self.process = subprocess.Popen([
            "qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024",
            "-display", "none", "-monitor", "none", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off", "-serial", f"file:{console}",
            "-chardev", f"socket,id=port,path={port},server=on,wait=off", "-serial", "chardev:port",
            "-drive", f"file={disk},if=virtio,format=raw,cache=writeback",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.page}-:8443,hostfwd=tcp:127.0.0.1:{self.rtmp}-:1935",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ], stdin=subprocess.DEVNULL)
        # Also when this program is told to end.
        atexit.register(self.cut)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self.line = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + patience
        while True:
            try:
                self.line.connect(str(port))
                break
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError("QEMU does not open the guest's port") from None
                time.sleep(0.05)
        self.line.settimeout(patience)
        self.answers = self.line.makefile("rb")
        while self.heard() != "READY":
            pass

    def heard(self) -> str:
        line = self.answers.readline()
        if not line:
            tail = self.console.read_text(errors="replace")[-1500:]
            raise RuntimeError(f"the guest has gone; its console ended with:\n{tail}")
        return line.decode(errors="replace").rstrip()

    def run(self, command: str, patience: float = 120) -> str:
        """What it says; fails when it ends with anything but 0. One line for the shell."""
        self.number += 1
        self.line.settimeout(patience)
        # The guest's `read` takes backslashes for escapes.
        escaped = command.replace("\\", "\\\\").replace("\n", " ")
        self.line.sendall(f"{self.number} {escaped}\n".encode())
        while not (head := self.heard()).startswith(f"BEGIN {self.number} "):
            pass
        code, size = head.split()[2:]
        said = self.answers.read(int(size)).decode(errors="replace").strip()
        while self.heard() != f"END {self.number}":
            pass
        if code != "0":
            raise RuntimeError(f"{command!r} ended with {code}: {said[-500:]}")
        return said

    def cut(self):
        """The power is gone, at once."""
        self.process.kill()
        self.process.wait()
