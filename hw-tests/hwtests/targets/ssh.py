"""A board on the bench: its shell by ssh, its power by commands that somebody gives, its gateway by its own token."""

import pathlib
import shlex
import socket
import subprocess
import time
import urllib.parse

from hwtests.gateway import Api
from hwtests.targets import Target, begun_by_uptime


class SshShell:
    def __init__(self, ssh: list[str]):
        self.ssh = ssh

    def run(self, command: str, patience: float = 120) -> str:
        """What it says; fails when it ends with anything but 0."""
        done = subprocess.run([*self.ssh, f"{{ {command}\n}} 2>&1"], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=patience)
        if done.returncode != 0:
            raise RuntimeError(f"{command!r} ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
        return done.stdout.strip()

    def close(self):
        pass


class Board(Target):
    patience = 300
    is_borrowed = True

    def __init__(self, login: str, command: str, page: str | None, rtmp: str | None, here: str | None,
                 token: pathlib.Path, power: tuple[str | None, str | None], work: pathlib.Path):
        host = login.rsplit("@", 1)[-1]
        self.login, self.power, self.notes = login, power, work / f"hw-tests-{host.replace('/', '_')}.json"
        self.ssh = [*shlex.split(command), "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", login]
        self.page = (page or f"https://{bracketed(host)}:8443").rstrip("/")
        reached = urllib.parse.urlsplit(self.page)
        self.rtmp = (rtmp or f"rtmp://{bracketed(reached.hostname)}:1935/live").rstrip("/")
        self.here = here or towards(reached.hostname, reached.port or 443)
        self.listen = self.here
        self.token = token.read_text().strip()
        self.off = False
        self.has: dict[str, str | None] = {}

    def about(self) -> dict:
        told = {"kind": "ssh", "login": self.login, "page": self.page, "this_machine": self.here}
        if self.lacks("shell") is None:
            shell = self.shell()
            told["kernel"] = shell.run("uname -srm")
            told["board"] = shell.run("tr -d '\\0' </proc/device-tree/model 2>/dev/null || "
                                      "cat /sys/class/dmi/id/product_name 2>/dev/null || echo unknown")
        return told

    def lacks(self, need: str) -> str | None:
        if need not in self.has:
            self.has[need] = self.looked_for(need)
        return self.has[need]

    def looked_for(self, need: str) -> str | None:
        if need == "power":
            return None if all(self.power) else "its power cannot be cut: --power-off and --power-on name no commands"
        if need == "shell":
            return self.fails("true", f"no shell by {shlex.join(self.ssh)}")
        if need in ("systemd", "supervisor"):
            return self.lacks("shell") or self.fails("systemctl is-active --quiet fieldgate.service",
                                                     "systemd does not run fieldgate.service there")
        return {"flash": "a board is flashed by hand", "stick": "nothing plugs a USB stick in there"}.get(need)

    def fails(self, command: str, text: str) -> str | None:
        try:
            self.shell().run(command, 30)
            return None
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            return f"{text}: {error}"

    # Power.

    def switch(self, command: str):
        done = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"{command!r} ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")

    def cut(self):
        self.off = True
        self.switch(self.power[0])

    def on(self):
        self.switch(self.power[1])
        self.off = False

    def running(self):
        # A case that failed may have left it dark.
        if self.off:
            self.on()
        Api(self.page).healthy(self.patience)

    def kernel_began(self) -> float | None:
        return begun_by_uptime(self.shell(), time.monotonic()) if self.lacks("shell") is None else None

    def shell(self) -> SshShell:
        return SshShell(self.ssh)

    def light(self):
        if self.off:
            self.running()


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def towards(host: str, port: int) -> str:
    """The address by which this machine reaches it."""
    kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return probe.getsockname()[0]
