"""Power cuts: nothing that was answered is lost, and it comes back by itself."""

import random
import threading
import time

from hwtests.bench import OURS
from hwtests.case import case, check
from hwtests.cases.boot import times_of_start

# Of a random power cut: rounds, and the longest that a start is let alone before it.
CUTS, EARLY = 3, 90.0
CUT = OURS + "cut-"
# So that the machine's memory has room for as many as are added before the power goes.
SMALL = {"bytes": 65_536}


@case(needs=("power",), after=("push",))
def power_cut(bench) -> dict:
    """Its power is cut; it comes back by itself, with its config, and delivers."""
    # What was confirmed is on the medium already; nothing is waited for.
    bench.running()
    bench.cut()
    time.sleep(bench.discharge)
    since = time.monotonic()
    bench.target.on()
    return times_of_start(bench, since)


@case(needs=("power",), after=("push",))
def cuts(bench) -> dict:
    """Power cuts at random, while it starts and while its config is changed: it always comes back, with every change
    that was answered."""
    chance, changes = random.Random(bench.seed), []
    # Of a run that did not come to its end.
    bench.running()
    take_out(bench, added(bench))
    for _ in range(CUTS):
        changes.append(change_until_cut(bench, chance.uniform(1, 15)))
        time.sleep(bench.discharge)
        bench.target.on()
        time.sleep(chance.uniform(1, EARLY))
        bench.cut()
        time.sleep(bench.discharge)
        since = time.monotonic()
        bench.target.on()
        bench.running()
        all_there(bench, *changes[-1])
        bench.delivers(since)
    return {"seed": bench.seed, "rounds": CUTS, "cuts": 2 * CUTS, "changes_answered": sum(len(done) for done, _ in changes)}


def change_until_cut(bench, after: float) -> tuple[set, str]:
    """Adds mountpoints until the power goes; those that were answered, and the one on its way."""
    bench.running()
    done, begun, is_cut = set(), "", threading.Event()

    def now():
        is_cut.set()
        bench.cut()

    cut = threading.Timer(after, now)
    cut.start()
    try:
        for number in range(10_000):
            begun = f"{CUT}{time.time_ns()}-{number}"
            bench.change({"mountpoints": {begun: {"source": {"kind": "publish"}, "ring": SMALL}}})
            done.add(begun)
    except (OSError, AssertionError) as error:
        check(is_cut.is_set(), f"a change was refused before the power was cut: {error}")
    finally:
        cut.join()
    return done, begun


def all_there(bench, done: set, begun: str):
    there = added(bench)
    check(done <= there <= done | {begun}, f"answered {done}, begun {begun}, found {there}")
    take_out(bench, there)


def added(bench) -> set[str]:
    """Mountpoints of this case that the config has."""
    config, _ = bench.api("GET", "/api/v1/config")
    return {name for name in config["mountpoints"] if name.startswith(CUT)}


def take_out(bench, names: set[str]):
    if names:
        bench.change({"mountpoints": {name: None for name in names}})
