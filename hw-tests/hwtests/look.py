"""What a root shell on a machine tells of it: ports, processes, memory, units' exposure, what is written to its disks."""

import ipaddress
import re
from collections import Counter

from hwtests.machine import ROOT

DOCUMENT = ROOT / "appliance/docs/image.md"
# Sectors of 512 bytes, and writes, that whole disks were given since the start.
WRITTEN = (r"for disk in /sys/block/*; do case $disk in */loop*|*/dm-*|*/ram*|*/zram*) continue;; esac; "
           r"[ -e $disk/device ] && cat $disk/stat; done")
TRACING = "/sys/kernel/tracing"
EVENT = f"{TRACING}/events/block/block_rq_issue"
# Loop devices, whose writes come again as their file's.
LOOP = "7"


def documented(text: str) -> dict[str, str]:
    """Where each port of the table "What listens" may listen: `tcp 8080` -> `loopback`."""
    _, _, section = text.partition("## What listens\n")
    rows = re.findall(r"^\| `((?:tcp|udp) \d+)` \| (loopback|everywhere) \|", section.split("\n## ")[0], re.M)
    return dict(rows)


def sockets(kind: str, table: str) -> set[tuple[str, bool]]:
    """Ports in state "listening" (0A), or bound (07) of UDP, and whether on loopback, of a table of the kernel's."""
    found = set()
    for address, port, state in re.findall(r"^\s*\d+: ([0-9A-F]{8,32}):([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) ", table, re.M):
        if state == ("0A" if kind.startswith("tcp") else "07"):
            # Words of four bytes, each as a little-endian number.
            raw = b"".join(bytes.fromhex(address[at:at + 8])[::-1] for at in range(0, len(address), 8))
            found.add((f"{kind[:3]} {int(port, 16)}", ipaddress.ip_address(raw).is_loopback))
    return found


def listening(shell) -> set[tuple[str, bool]]:
    """What listens now."""
    return set().union(*(sockets(kind, shell.run(f"cat /proc/net/{kind} 2>/dev/null || true"))
                         for kind in ("tcp", "tcp6", "udp", "udp6")))


def not_documented(found: set[tuple[str, bool]], allowed: dict[str, str]) -> list[str]:
    """Those of `found` that may not be there, or not for everybody."""
    return sorted(port + ("" if is_loopback else " for everybody") for port, is_loopback in found
                  if port not in allowed or (allowed[port] == "loopback" and not is_loopback))


def processes(shell) -> list[str]:
    """KiB that each has for itself (PSS) and what it is; the largest first."""
    told = shell.run("for one in /proc/[0-9]*; do [ -e $one/smaps_rollup ] && "
                     r"echo $(sed -n 's/^Pss: *\([0-9]*\).*/\1/p' $one/smaps_rollup) "
                     "$(tr '\\0' ' ' <$one/cmdline); done 2>/dev/null | sort -rn || true")
    # The kernel's own threads have neither.
    return [line[:120].strip() for line in told.splitlines() if re.match(r"\d+ \S", line)]


def memory(shell) -> list[str]:
    return shell.run("grep -E '^(MemTotal|MemAvailable)' /proc/meminfo").splitlines()


def exposure(shell) -> list[str]:
    """systemd's own marks for each unit."""
    return shell.run("systemd-analyze security --no-pager | cat").splitlines()


def written(shell) -> tuple[int, int]:
    """Bytes and writes so far."""
    lines = [line.split() for line in shell.run(WRITTEN).splitlines() if line.strip()]
    return sum(int(line[6]) for line in lines) * 512, sum(int(line[4]) for line in lines)


def begin_trace(shell) -> bool:
    """Has the kernel note each write to a disk from now on; whether it can."""
    return shell.run(f"[ -e {EVENT} ] || mount -t tracefs none {TRACING} 2>/dev/null; if [ -e {EVENT} ]; then "
                     f"echo 4096 >{TRACING}/buffer_size_kb; echo 'rwbs ~ \"*W*\"' >{EVENT}/filter; : >{TRACING}/trace; "
                     f"echo 1 >{EVENT}/enable; echo 1 >{TRACING}/tracing_on; echo yes; fi") == "yes"


def end_trace(shell) -> list[tuple[float, int, str]]:
    """Second, bytes and name of the process of each write since `begin_trace`."""
    # Only what is looked at, as the way out may be a serial line.
    told = shell.run(f"echo 0 >{EVENT}/enable; grep block_rq_issue: {TRACING}/trace || true; : >{TRACING}/trace")
    return writes_of(told)


def writes_of(trace: str) -> list[tuple[float, int, str]]:
    found = re.findall(r" (\d+\.\d+): block_rq_issue: (\d+),\d+ \w+ \d+ \(.*?\) \d+ \+ (\d+) .*?\[(.+)\]$", trace, re.M)
    return [(float(at), int(sectors) * 512, who) for at, major, sectors, who in found if major != LOOP]


def by_process(writes: list[tuple[float, int, str]]) -> dict[str, int]:
    """Bytes by whoever had them written, the most first."""
    total: Counter[str] = Counter()
    for _, size, who in writes:
        total[who] += size
    return dict(total.most_common())
