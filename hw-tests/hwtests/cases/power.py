"""Power cuts: nothing that was answered is lost, and it comes back by itself."""

import random
import threading
import time

from hwtests.case import case, check

# Of a random power cut: rounds, and the longest that a start is let alone before it.
CUTS, EARLY = 3, 90.0


@case(needs=("power",), after=("push",))
def power_cut(bench) -> dict:
    """Its power is cut; it comes back by itself, with its config, and delivers."""
    # What was confirmed is on the medium already; nothing is waited for.
    target = bench.running()
    target.cut()
    target.on()
    began = time.monotonic()
    kernel = target.starts_at()
    first = bench.delivers(kernel)
    return {"loader_after_s": round(kernel - began, 1), "first_picture_after_loader_s": round(first - kernel, 1)}


@case(needs=("power",), after=("push",))
def cuts(bench) -> dict:
    """Power cuts at random, while it starts and while its config is changed: it always comes back, with every change
    that was answered."""
    chance, changes = random.Random(bench.seed), []
    for _ in range(CUTS):
        changes.append(change_until_cut(bench, chance.uniform(1, 15)))
        bench.target.on()
        time.sleep(chance.uniform(1, EARLY))
        bench.target.cut()
        since = time.monotonic()
        bench.target.on()
        bench.running()
        all_there(bench, *changes[-1])
        bench.delivers(since)
    return {"seed": bench.seed, "rounds": CUTS, "cuts": 2 * CUTS, "changes_answered": sum(len(done) for done, _ in changes)}


def change_until_cut(bench, after: float) -> tuple[set, str]:
    """Adds mountpoints until the power goes; those that were answered, and the one on its way."""
    target, done, begun = bench.running(), set(), ""
    cut = threading.Timer(after, target.cut)
    cut.start()
    try:
        for number in range(10_000):
            begun = f"cut-{time.time_ns()}-{number}"
            bench.change({"mountpoints": {begun: {"source": {"kind": "publish"}}}})
            done.add(begun)
    except (OSError, AssertionError):
        check(target.is_off(), "a change was refused before the power was cut")
    finally:
        cut.join()
    return done, begun


def all_there(bench, done: set, begun: str):
    config, _ = bench.api("GET", "/api/v1/config")
    there = {name for name in config["mountpoints"] if name.startswith("cut-")}
    check(done <= there <= done | {begun}, f"answered {done}, begun {begun}, found {there}")
    bench.change({"mountpoints": {name: None for name in there}})
