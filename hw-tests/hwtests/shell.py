"""Commands in a guest whose image has a root shell on its first virtio console (build-image --trial)."""

import pathlib
import re
import socket
import time


class Shell:
    """Lasts as long as the guest runs; a restart of the guest needs a new one."""

    def __init__(self, path: pathlib.Path, patience: float):
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(str(path))
        self.line.settimeout(1)
        self.heard, self.number = "", 0
        deadline = time.monotonic() + patience
        # The shell may not be there yet, and what was typed before it came is lost.
        while True:
            self.line.sendall(b"\nstty -echo; PS1=; PS2=; echo thi''s is a shell\n")
            if self.hear(r"this is a shell", 5):
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"no shell in the guest within {patience:.0f} s: {self.heard[-300:]!r}")

    def hear(self, pattern: str, patience: float) -> re.Match | None:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.heard):
                return found
            try:
                self.heard += self.line.recv(65536).decode(errors="replace").replace("\r", "")
            except TimeoutError:
                pass
        return None

    def run(self, command: str, patience: float = 120) -> str:
        """What it says; fails when it ends with anything but 0."""
        self.number += 1
        self.heard = ""
        # Put together by the shell, so that an echo of the command is not taken for its end.
        self.line.sendall(f"{{ {command}\n}} 2>&1; echo \"en\"\"ded {self.number} $?.\"\n".encode())
        found = self.hear(rf"ended {self.number} (\d+)\.", patience)
        if not found:
            raise TimeoutError(f"{command!r} did not end within {patience:.0f} s: {self.heard[-500:]!r}")
        said = self.heard[: found.start()].strip()
        if found[1] != "0":
            raise RuntimeError(f"{command!r} ended with {found[1]}: {said[-500:]}")
        return said

    def close(self):
        self.line.close()
