"""What cases are run on. A target says why it lacks something, by the words that cases use for what they need:

    flash       it can be begun anew with a medium that nobody has used
    power       its power can be cut and given back
    stick       a USB stick can be plugged in, and there are bundles of the image to put on it
    shell       commands can be run in it as root
    systemd     systemd runs the program there as fieldgate.service
    supervisor  something starts the program again when it ends
    cameras     there may be cameras
"""


class Target:
    """One machine with a gateway. What a single kind can do beside this is in its own class."""

    # Longest wait for one thing, in seconds.
    patience: float
    # This machine, as the target's network calls it; and where upstreams listen on it.
    here: str
    listen = "127.0.0.1"
    # The gateway's page, `https://HOST:PORT`.
    page: str
    # Where encoders publish to it: `rtmp://HOST:PORT/live`.
    rtmp: str
    # What the config must say of `rtmp` for that; nothing where it is somebody's own.
    rtmp_config: dict = {}
    # Of its API; empty when the run claims the gateway itself.
    token = ""
    # Sizes (and rate) that its encoder is tried with, and what is asked of a camera.
    sizes: tuple[tuple[int, int, int], ...] = ((640, 360, 30), (1280, 720, 30), (1920, 1080, 30))
    camera_wish: dict = {}
    # Whether cameras may be found on its network.
    has_network = True
    # Whether its config is somebody's own, so that nothing may be left in it.
    is_borrowed = False

    def lacks(self, need: str) -> str | None:
        """Why it has not what a case needs."""
        raise NotImplementedError

    def about(self) -> dict:
        """What the report says of it."""
        raise NotImplementedError

    def running(self):
        """Waits until it is on and healthy."""
        raise NotImplementedError

    def shell(self):
        """Something to `run` commands by, and to `close`."""
        raise NotImplementedError

    def kernel_began(self) -> float | None:
        """When the kernel that runs was begun, on this machine's clock; None where nothing tells."""
        raise NotImplementedError

    def bring_cameras(self):
        """Sees to it that there is what stands for a camera, where that is not somebody's hand."""

    def light(self):
        """Gives it its power back, where a case has ended in the dark and it is somebody's own."""

    def end(self):
        """Leaves nothing running here."""


def begun_by_uptime(shell, now: float) -> float:
    return now - float(shell.run("cat /proc/uptime").split()[0])
