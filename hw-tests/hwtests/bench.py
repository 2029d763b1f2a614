"""What every case works with: the target, its API, and upstreams on this machine that count pictures."""

import contextlib
import json
import time

from hwtests.case import check
from hwtests.gateway import Api
from hwtests.kmp import KmpSink
from hwtests.machine import free_port
from hwtests.sink import RtmpSink, Sink

# What the run adds to a gateway's mountpoints begins with this.
OURS = "hw-test-"
DEMO, YARD = OURS + "demo", OURS + "yard"
PASSWORD = "seven green lanterns"
USER = "trial"


class Bench:
    def __init__(self, target, fresh: bool, asked):
        self.target, self.notes = target, target.notes
        # How the run was asked for: the seed of random cuts, and times in seconds.
        self.seed, self.discharge = asked.seed, asked.discharge
        self.soak, self.heat, self.idle = asked.soak, asked.heat, asked.idle
        self.pictures = asked.pictures
        # The config on a target's medium names the ports, so they stay as long as the medium.
        self.kept = {} if fresh or not self.notes.exists() else json.loads(self.notes.read_text())
        # The test picture goes to both, by RTMP and by KMP.
        self.demo = RtmpSink(self.kept.setdefault("port", free_port()), DEMO, target.listen)
        self.kmp = KmpSink(self.kept.setdefault("kmp_port", free_port()), DEMO, target.listen)
        self.yard = RtmpSink(self.kept.setdefault("camera_port", free_port()), YARD, target.listen)
        self.sinks = (self.demo, self.kmp, self.yard)
        self.keep()

    def keep(self, **more):
        self.kept |= more
        self.notes.touch(mode=0o600)
        self.notes.write_text(json.dumps(self.kept))

    def leave(self):
        """Takes out of a borrowed config what was put in."""
        if self.target.is_borrowed:
            config, _ = self.api("GET", "/api/v1/config")
            if ours := [name for name in config["mountpoints"] if name.startswith(OURS)]:
                self.change({"mountpoints": {name: None for name in ours}})

    def stop(self):
        """Ends what this machine has for it."""
        for sink in self.sinks:
            sink.stop()

    # The API.

    def gateway(self) -> Api:
        return Api(self.target.page, self.target.token or self.kept.get("token", ""))

    def api(self, method: str, path: str, body=None, headers=None):
        return self.gateway().ask(method, path, body, headers)

    def change(self, patch: dict):
        self.gateway().change(patch, self.target.patience)

    def status(self) -> dict:
        return self.api("GET", "/api/v1/status")[0]

    def not_locked_in(self, mountpoint: str) -> list:
        return self.status()["workers"][mountpoint].get("sandbox_gaps", [])

    def claim(self):
        """Makes a token, unless there is one: claims the gateway with the code that the target shows."""
        if self.target.token or self.kept.get("token"):
            return
        code = self.target.claim_code()
        answer, headers = self.api("POST", "/api/v1/claim", {"code": code, "user": USER, "password": PASSWORD})
        cookie, csrf = headers["Set-Cookie"].split(";")[0], answer["csrf"]
        page = {"Cookie": cookie, "X-CSRF-Token": csrf, "Origin": self.target.page}
        made, _ = self.api("POST", "/api/v1/tokens", {"name": "trial", "role": "admin"}, page)
        self.keep(token=made["token"])

    # The machine.

    def running(self):
        """The target, on and healthy."""
        self.target.running()
        return self.target

    def push_to(self, *sinks: Sink) -> list:
        """A mountpoint's `push` to these upstreams."""
        return [sink.push_from(self.target.here) for sink in sinks]

    def delivers(self, since: float, sink: Sink | None = None) -> float:
        """Waits for pictures at this upstream, or at both of the test picture's; when the first one came, there by RTMP."""
        if sink is None:
            self.delivers(since, self.kmp)
        return (sink or self.demo).pictures(self.pictures, self.target.patience, since)

    def cut(self):
        """The power is gone. Upstreams do not wait for connections that nobody will end."""
        self.target.cut()
        self.hang_up()

    def hang_up(self):
        for sink in self.sinks:
            sink.hang_up()

    @contextlib.contextmanager
    def shell(self):
        shell = self.running().shell()
        try:
            yield shell
        finally:
            shell.close()

    def inside_until(self, what: str, command: str, wanted: str):
        with self.shell() as shell:
            deadline = time.monotonic() + self.target.patience
            while wanted not in (said := shell.run(command)):
                check(time.monotonic() < deadline, f"waited for: {what}; it says {said}")
                time.sleep(3)
