"""Cameras, from the device file to this machine."""

import time

from hwtests.bench import PICTURES
from hwtests.case import case, check


@case(needs=("cameras",), after=("push",))
def vivid(bench) -> dict:
    """A camera of the kernel's test driver: found, captured, encoded and pushed."""
    bench.running().bring_cameras()
    began = time.monotonic()
    bench.change({"mountpoints": {"camera": {
        "source": {"kind": "v4l2", "device": "/dev/video0", "width": 320, "height": 180, "frame_rate": 10,
                   "bitrate": 300_000, "keyframe_interval": "1s"},
        "push": bench.push_to(bench.yard)}}})
    first = bench.delivers(began, bench.yard)
    gaps = bench.not_locked_in("camera")
    check(not gaps, f"the worker is not locked in: {gaps}")
    bench.change({"mountpoints": {"camera": None}})
    return {"pictures": PICTURES, "first_after_change_s": round(first - began, 1)}
