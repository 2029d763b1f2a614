"""Runs cases for a gateway on a board or in QEMU; each says that it ran, failed, or was skipped and why.

    scripts/hw-tests --list                            the cases, and what they need
    scripts/hw-tests --target qemu                     the image of scripts/build-image, with a medium that was just
                                                       flashed; where there is none, the small guest of scripts/guest
    scripts/hw-tests --target qemu --cases NAME,...    these; without `boot`, with the medium as the last run left it
    scripts/hw-tests --target ssh:root@HOST --token-file FILE --power-off COMMAND --power-on COMMAND

Prints each case as it ends. Ends with 1 when one failed. hw-tests/README.md tells more.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

from hwtests import cases, machine, report
from hwtests.bench import Bench
from hwtests.case import Case, Skip
from hwtests.targets import Target
from hwtests.targets.image import Image
from hwtests.targets.small import Small
from hwtests.targets.ssh import Board

WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", machine.ROOT / "target"))
# What a case that fails ends with; anything else is a mistake of the runner's own.
FAILURES = (AssertionError, OSError, RuntimeError, KeyError, ValueError, subprocess.SubprocessError)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def span(text: str) -> float:
    """`60s`, `5m`, `2h` or `7d`, in seconds."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: a number and s, m, h or d, such as 90s")
    return float(int(found[1]) * SECONDS[found[2]])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hw-tests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="names the cases and ends")
    parser.add_argument("--target", help="qemu, or ssh:[USER@]HOST")
    parser.add_argument("--cases", help="names, with commas between (default: all)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="where the report goes")
    parser.add_argument("--page", type=pathlib.Path, metavar="FILE", help="the same as a page")
    parser.add_argument("--pictures", type=int, default=50, help="that must arrive each time (default 50)")
    parser.add_argument("--soak", type=span, default="60s", help="how long `soak` takes, such as 7d (default 60s)")
    parser.add_argument("--heat", type=span, default="5m", help="how long `heat` keeps the processor busy (default 5m)")
    parser.add_argument("--idle", type=span, default="0s",
                        help="how long `idle` counts what is written, such as 30m (default: it is skipped)")
    parser.add_argument("--seed", type=int, help="of the random power cuts; each report has the one that it used")
    qemu = parser.add_argument_group("--target qemu")
    qemu.add_argument("--image", type=pathlib.Path, help="of scripts/build-image (default: target/image/fieldgate.img)")
    qemu.add_argument("--small", action="store_true", help="the small guest also where there is an image")
    qemu.add_argument("--program", type=pathlib.Path, default=WORK / "debug/fieldgate",
                      help="that runs in the small guest (default: target/debug/fieldgate)")
    ssh = parser.add_argument_group("--target ssh:[USER@]HOST")
    ssh.add_argument("--ssh", default="ssh", metavar="COMMAND", help="with a port or a key (default: ssh)")
    ssh.add_argument("--token-file", type=pathlib.Path, metavar="FILE", help="a token of its API with the role admin")
    ssh.add_argument("--page-at", metavar="URL", help="of its page (default: https://HOST:8443)")
    ssh.add_argument("--rtmp-at", metavar="URL", help="where it is published to (default: rtmp://HOST:1935/live)")
    ssh.add_argument("--this-host", metavar="ADDRESS", help="of this machine, as the board reaches it")
    ssh.add_argument("--power-off", metavar="COMMAND", help="cuts its power")
    ssh.add_argument("--power-on", metavar="COMMAND", help="gives it back")
    ssh.add_argument("--discharge", type=span, help="how long it stays without power (default 5s; 0s in QEMU)")
    asked = parser.parse_args()
    if not asked.list and asked.target != "qemu" and not (asked.target or "").startswith("ssh:"):
        parser.error(f"--target must be qemu or ssh:[USER@]HOST, not {asked.target}")
    if (asked.target or "").startswith("ssh:") and not asked.token_file:
        parser.error("--target ssh: needs --token-file; hw-tests/README.md tells how a token is made")
    if asked.seed is None:
        asked.seed = random.randrange(1 << 32)
    if asked.discharge is None:
        asked.discharge = 0.0 if asked.target == "qemu" else 5.0
    return asked


def chosen(names: str | None) -> list[Case]:
    every = cases.in_order()
    if names is None:
        return every
    wanted = names.split(",")
    if unknown := set(wanted) - {one.name for one in every}:
        sys.exit(f"hw-tests: no case {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in every)}")
    return [one for one in every if one.name in wanted]


def target_of(asked: argparse.Namespace, fresh: bool) -> Target:
    if asked.target.startswith("ssh:"):
        return Board(asked.target.removeprefix("ssh:"), asked.ssh, asked.page_at, asked.rtmp_at, asked.this_host,
                     asked.token_file, (asked.power_off, asked.power_on), WORK)
    image = asked.image or WORK / "image/fieldgate.img"
    if image.exists() and not asked.small:
        return Image(image, fresh)
    if asked.image:
        sys.exit(f"hw-tests: {image} is not there; scripts/build-image makes it")
    if not asked.program.exists():
        sys.exit(f"hw-tests: {asked.program} is not there; cargo build -p fieldgate makes it, --program names another")
    return Small(asked.program, WORK, fresh)


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
    # So that a run that is ended leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if asked.list:
        for one in cases.in_order():
            needs = f" (needs {', '.join(one.needs)})" if one.needs else ""
            print(f"{one.name:13} {one.feature:12} {one.about}{needs}")
        return 0
    picked = chosen(asked.cases)
    fresh = "boot" in [one.name for one in picked]
    try:
        target = target_of(asked, fresh)
        about = target.about()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"hw-tests: the target cannot be reached: {error}")
    print(f"hw-tests: {json.dumps(about)}", flush=True)
    told = {"target": about, "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "cases": []}
    bench, failed = Bench(target, fresh, asked), {}
    try:
        for one in picked:
            done = run(one, bench, failed)
            told["cases"].append(done)
            brief = {name: value for name, value in done.items() if name not in ("feature", "about") and value != {}}
            print(json.dumps(brief, ensure_ascii=False), flush=True)
            report.keep(told, asked.json, asked.page)
    finally:
        # Each, whatever became of the others: power is on again before the config is looked at.
        for last in (target.light, bench.leave, bench.stop, target.end):
            try:
                last()
            except FAILURES as error:
                print(f"hw-tests: not left as it was found: {error}", file=sys.stderr)
    print(f"hw-tests: {report.counts(told)}")
    return 1 if failed else 0
