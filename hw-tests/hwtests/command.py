"""Runs cases for a gateway on a board or in QEMU; each says that it ran, or was skipped and why.

    scripts/hw-tests --list                          the cases, and what they need
    scripts/hw-tests --target qemu                   the image of scripts/build-image, with a medium that was just flashed
    scripts/hw-tests --target qemu --cases NAME,...  these; without `boot`, with the medium as the last run left it

Prints each case as it ends. Ends with 1 when one failed. hw-tests/README.md tells more.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import subprocess
import sys
import time

from hwtests import cases, machine, report
from hwtests.bench import Bench
from hwtests.case import Case, Skip
from hwtests.targets.image import Image

WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", machine.ROOT / "target"))
# What a case that fails ends with; anything else is a mistake of the runner's own.
FAILURES = (AssertionError, OSError, RuntimeError, KeyError, ValueError, subprocess.CalledProcessError)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hw-tests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="names the cases and ends")
    parser.add_argument("--target", help="qemu")
    parser.add_argument("--cases", help="names, with commas between (default: all)")
    parser.add_argument("--image", type=pathlib.Path, help="of scripts/build-image (default: target/image/fieldgate.img)")
    parser.add_argument("--seed", type=int, help="of the random power cuts; each report has the one that it used")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="where the report goes")
    parser.add_argument("--page", type=pathlib.Path, metavar="FILE", help="the same as a page")
    asked = parser.parse_args()
    if not asked.list and asked.target != "qemu":
        parser.error(f"--target must be qemu, not {asked.target}")
    return asked


def chosen(names: str | None) -> list[Case]:
    every = cases.in_order()
    if names is None:
        return every
    wanted = names.split(",")
    if unknown := set(wanted) - {one.name for one in every}:
        sys.exit(f"hw-tests: no case {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in every)}")
    return [one for one in every if one.name in wanted]


def why_not(one: Case, bench: Bench, failed: dict[str, str]) -> str | None:
    """Why a case cannot be run now; `failed` has the cases that failed, and those that were skipped for that."""
    for before in one.after:
        if before in failed:
            failed[one.name] = failed[before]
            return f"it builds on {before}, and {failed[before]} failed"
    for need in one.needs:
        if why := bench.target.lacks(need):
            return why
    return None


def run(one: Case, bench: Bench, failed: dict[str, str]) -> dict:
    began, figures, result = time.monotonic(), {}, {"result": "ran"}
    try:
        if why := why_not(one, bench, failed):
            raise Skip(why)
        figures = one.function(bench)
    except Skip as skip:
        result = {"result": "skipped", "why": str(skip)}
    except FAILURES as error:
        failed[one.name] = one.name
        said = getattr(error, "stderr", None) or ""
        result = {"result": "failed", "why": f"{type(error).__name__}: {error} {said}".strip()}
    return {"case": one.name, "feature": one.feature, "about": one.about, **result, "figures": figures,
            "took_s": round(time.monotonic() - began, 1)}


def main() -> int:
    asked = arguments()
    if asked.list:
        for one in cases.in_order():
            needs = f" (needs {', '.join(one.needs)})" if one.needs else ""
            print(f"{one.name:12} {one.feature:12} {one.about}{needs}")
        return 0
    picked = chosen(asked.cases)
    fresh = "boot" in [one.name for one in picked]
    image = asked.image or WORK / "image/fieldgate.img"
    if not image.exists():
        sys.exit(f"hw-tests: {image} is not there; scripts/build-image makes it")
    target = Image(image, fresh)
    print(f"hw-tests: {json.dumps(target.about())}", flush=True)
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    bench = Bench(target, target.notes, fresh, seed)
    told = {"target": target.about(), "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "cases": []}
    failed: dict[str, str] = {}
    try:
        for one in picked:
            done = run(one, bench, failed)
            told["cases"].append(done)
            brief = {name: value for name, value in done.items() if name not in ("feature", "about") and value != {}}
            print(json.dumps(brief, ensure_ascii=False), flush=True)
            report.keep(told, asked.json, asked.page)
    finally:
        bench.stop()
        target.end()
    print(f"hw-tests: {report.counts(told)}")
    return 1 if failed else 0
