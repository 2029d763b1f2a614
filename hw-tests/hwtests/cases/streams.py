"""Streams: a test picture and an encoder's, pushed to this machine; the same for as long as somebody likes."""

import time

from hwtests.bench import DEMO, YARD
from hwtests.case import case, check
from hwtests.sink import Encoder

# Between two looks of a soak, and how many of them may go unanswered in a row.
LOOK, UNANSWERED = 5.0, 12


@case(after=("boot",))
def push(bench) -> dict:
    """Claimed, given a test picture, an encoder's stream and upstreams on this host, it delivers both; the test picture by
    RTMP and by KMP."""
    target = bench.running()
    bench.claim()
    began = time.monotonic()
    patch = {"mountpoints": {
        DEMO: {"source": {"kind": "test", "width": 320, "height": 180, "frame_rate": 10, "bitrate": 300_000,
                          "keyframe_interval": "1s"},
               "push": bench.push_to(bench.demo, bench.kmp)},
        YARD: {"source": {"kind": "publish", "allow": [f"{target.here}/{128 if ':' in target.here else 32}"]},
               "push": bench.push_to(bench.yard)}}}
    if target.rtmp_config:
        patch["rtmp"] = target.rtmp_config
    bench.change(patch)
    by_kmp, first = bench.delivers(began, bench.kmp), bench.delivers(began)
    encoder = Encoder(f"{target.rtmp}/{YARD}")
    try:
        published = bench.delivers(began, bench.yard)
    finally:
        encoder.stop()
    return {"pictures": bench.pictures, "first_after_change_s": round(first - began, 1),
            "kmp_first_after_change_s": round(by_kmp - began, 1), "kmp": bench.kmp.figures(),
            "published_first_after_change_s": round(published - began, 1)}


@case(after=("push",))
def soak(bench) -> dict:
    """Delivers for the time that --soak says: pictures, gaps, restarts, memory, losses in the ledger."""
    bench.running()
    # What was lost while the case before had the power is not this one's.
    bench.delivers(time.monotonic())
    before = bench.status()
    bench.demo.taken()
    began, memory = time.monotonic(), [memory_of(before)]
    last, longest, pictures, silent = began, 0.0, 0, 0
    while (left := began + bench.soak - time.monotonic()) > 0:
        time.sleep(min(LOOK, left))
        for at in bench.demo.taken():
            longest, last, pictures = max(longest, at - last), at, pictures + 1
        try:
            memory.append(memory_of(bench.status()))
            silent = 0
        except OSError as error:
            silent += 1
            check(silent < UNANSWERED, f"its API was silent {silent} times in a row: {error}")
    longest = max(longest, time.monotonic() - last)
    after = bench.status()
    lost = losses(bench, before["at"])
    told = {"seconds": round(time.monotonic() - began, 1), "pictures": pictures, "longest_gap_s": round(longest, 1),
            "restarts": int(after["started"] != before["started"]), "new_workers": new_workers(before, after),
            "workers_memory_bytes": {"first": memory[0], "most": max(memory), "last": memory_of(after)}, "lost": lost}
    check(pictures > 0, f"no picture arrived: {told}")
    check(not told["restarts"] and not told["new_workers"], f"something was started again: {told}")
    check(not lost, f"pictures were lost: {told}")
    return told


def memory_of(status: dict) -> int:
    return sum(worker["memory_bytes"] for worker in status["workers"].values())


def new_workers(before: dict, after: dict) -> list[str]:
    return sorted(name for name, worker in before["workers"].items() if after["workers"].get(name, {}).get("pid") != worker["pid"])


def losses(bench, since: str) -> dict[str, int]:
    """Frames of the test picture that did not leave, by what became of them."""
    lost, cursor = {}, ""
    while True:
        page, _ = bench.api("GET", f"/api/v1/ledger?mountpoint={DEMO}&from={since}&limit=5000{cursor}")
        for entry in page["entries"]:
            if entry["state"] in ("lost", "unconfirmed", "unknown"):
                key = f"{entry['state']}: {entry.get('cause', 'no cause')}"
                lost[key] = lost.get(key, 0) + entry["frames"]
        if not page.get("next_cursor"):
            return lost
        cursor = f"&cursor={page['next_cursor']}"
