"""What stands on this host beside a gateway: upstreams that count pictures, an encoder that publishes."""

import subprocess
import threading
import time

QUIET = ["ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "quiet"]


class Sink:
    """An upstream, and when pictures came to it. Which protocol it takes is told by `listen`, `hang_up` and `url_from`."""

    def __init__(self, port: int, name: str, listen: str):
        self.port, self.name = port, name
        self.url = self.url_from(listen)
        self.came: list[float] = []
        self.ended = 0.0
        self.arrived = threading.Condition()
        self.stopped = False
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def url_from(self, host: str) -> str:
        """Its address as somebody sees it to whom this machine is `host`."""
        raise NotImplementedError

    def push_from(self, host: str) -> dict:
        """One of a mountpoint's `push`, to here."""
        return {"url": self.url_from(host)}

    def listen(self):
        """Takes pushes, and tells of them, until it is stopped."""
        raise NotImplementedError

    def hang_up(self):
        """Ends the push that there may be, and waits for the next: also of a machine that was reset and will never say so."""
        raise NotImplementedError

    def picture_came(self):
        with self.arrived:
            self.came.append(time.monotonic())
            self.arrived.notify_all()

    def push_ended(self):
        with self.arrived:
            self.ended = time.monotonic()
            self.arrived.notify_all()

    def pictures(self, count: int, patience: float, since: float) -> float:
        """Waits for `count` pictures after `since`; when the first of them came."""
        deadline = time.monotonic() + patience
        with self.arrived:
            while True:
                fresh = [at for at in self.came if at > since]
                if len(fresh) >= count:
                    return fresh[0]
                left = deadline - time.monotonic()
                if left <= 0 or not self.arrived.wait(left):
                    raise TimeoutError(f"{len(fresh)} of {count} pictures arrived at {self.url} within {patience:.0f} s")

    def gone(self, patience: float, since: float) -> float:
        """Waits until a push has ended after `since`; when that was."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: self.ended > since, patience):
                raise TimeoutError(f"the push to {self.url} did not end within {patience:.0f} s")
            return self.ended

    def taken(self) -> list[float]:
        """When pictures came since this was asked last."""
        with self.arrived:
            came, self.came = self.came, []
            return came

    def stop(self):
        self.stopped = True
        # One may be starting just now.
        while self.thread.is_alive():
            self.hang_up()
            self.thread.join(0.2)


class RtmpSink(Sink):
    """Takes one push after the other, by ffmpeg."""

    listener: subprocess.Popen | None = None

    def url_from(self, host: str) -> str:
        return f"rtmp://{host}:{self.port}/live/{self.name}"

    def listen(self):
        while not self.stopped:
            # What it is can be told from the first pictures; a line goes out for each as it comes.
            self.listener = subprocess.Popen(
                [*QUIET, "-listen", "1", "-fflags", "nobuffer", "-probesize", "100000", "-analyzeduration", "500000",
                 "-i", self.url, "-map", "0:v", "-c", "copy", "-flush_packets", "1", "-f", "framehash", "-"],
                stdout=subprocess.PIPE, text=True)
            for line in self.listener.stdout:
                if not line.startswith("#"):
                    self.picture_came()
            self.listener.wait()
            self.push_ended()
            time.sleep(0.2)

    def hang_up(self):
        if self.listener:
            self.listener.kill()


class Encoder:
    """Publishes a moving picture to a gateway again and again, as a camera does, until it is stopped."""

    def __init__(self, url: str):
        self.url, self.stopped = url, threading.Event()
        self.thread = threading.Thread(target=self.publish)
        self.thread.start()

    def publish(self):
        while not self.stopped.wait(0.5):
            one = subprocess.Popen(
                [*QUIET, "-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10", "-c:v", "libx264", "-preset",
                 "ultrafast", "-tune", "zerolatency", "-g", "10", "-f", "flv", self.url])
            while one.poll() is None and not self.stopped.wait(0.5):
                pass
            one.kill()
            one.wait()

    def stop(self):
        self.stopped.set()
        self.thread.join()
