"""Streams: a test picture and an encoder's, pushed to this machine."""

import time

from hwtests.bench import PICTURES
from hwtests.case import case
from hwtests.sink import Encoder


@case(after=("boot",))
def push(bench) -> dict:
    """Claimed, given a test picture, an encoder's stream and upstreams on this host, it delivers both."""
    target = bench.running()
    bench.claim()
    began = time.monotonic()
    bench.change({"rtmp": {"listen": ["0.0.0.0:1935"]}, "mountpoints": {
        "demo": {"source": {"kind": "test", "width": 320, "height": 180, "frame_rate": 10, "bitrate": 300_000,
                            "keyframe_interval": "1s"},
                 "push": bench.push_to(bench.demo)},
        "yard": {"source": {"kind": "publish", "allow": [f"{target.here}/32"]}, "push": bench.push_to(bench.yard)}}})
    first = bench.delivers(began)
    encoder = Encoder(f"{target.rtmp}/yard")
    try:
        bench.delivers(began, bench.yard)
    finally:
        encoder.stop()
    return {"pictures": PICTURES, "first_after_change_s": round(first - began, 1)}
