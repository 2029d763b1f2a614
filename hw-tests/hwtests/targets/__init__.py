"""What cases are run on. Each target says what it has not, by the words that cases use for what they need:

    power    its power can be cut and given back
    slots    it was flashed with the image of scripts/build-image, on a medium that this run may write
    stick    a USB stick can be plugged in, and there are bundles to put on it
    shell    commands can be run in it as root
    systemd  systemd runs the program there as fieldgate.service
    cameras  there are cameras, or a driver that stands for them
"""


class Target:
    """One machine with a gateway. What a target can do by itself is in its own class."""

    # Longest wait for one thing, in seconds.
    patience: float
    # This machine, as the target's network calls it.
    here: str
    # The gateway's page, `https://HOST:PORT`.
    page: str
    # Where encoders publish to it: `rtmp://HOST:PORT/live`.
    rtmp: str
    # Of its API; empty when the run claims the gateway itself.
    token = ""

    def lacks(self, need: str) -> str | None:
        """Why it has not what a case needs."""
        raise NotImplementedError

    def about(self) -> dict:
        """What the report says of it."""
        raise NotImplementedError

    def sink_port(self) -> int:
        """A port of this machine that the target can reach."""
        raise NotImplementedError
