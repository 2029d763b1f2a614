"""What a machine does when nothing happens: claimed, with no camera and no upstream."""

import time

from hwtests.case import Skip, case, check

# Bytes a day that an idle machine may write, at most.
WRITTEN_MAX = 1_000_000


# Sectors of 512 bytes, and writes, that whole disks were given since the start.
WRITTEN = (r"for disk in /sys/block/*; do case $disk in */loop*|*/dm-*|*/ram*|*/zram*) continue;; esac; "
           r"[ -e $disk/device ] && cat $disk/stat; done")


def written(shell) -> tuple[int, int]:
    """Bytes and writes so far."""
    lines = [line.split() for line in shell.run(WRITTEN).splitlines() if line.strip()]
    return sum(int(line[6]) for line in lines) * 512, sum(int(line[4]) for line in lines)


@case(needs=("shell", "systemd"), after=("push",))
def idle(bench) -> dict:
    """Bytes written to the medium, open ports, units' exposure, processes and memory of an idle machine."""
    if not bench.idle:
        raise Skip("asked for with --idle, such as --idle 30m")
    before, _ = bench.api("GET", "/api/v1/config")
    bench.change({"mountpoints": {name: None for name in before["mountpoints"]}})
    with bench.shell() as shell:
        # What was written until now is no part of it.
        shell.run("busybox sync")
        time.sleep(60)
        writes = []
        end = time.monotonic() + bench.idle
        last = first = written(shell)
        while time.monotonic() < end:
            time.sleep(30)
            now = written(shell)
            if now != last:
                writes.append([round(bench.idle - (end - time.monotonic())), now[0] - last[0]])
            last = now
        written, count = last[0] - first[0], last[1] - first[1]
        processes = shell.run("for one in /proc/[0-9]*; do [ -e $one/smaps_rollup ] && "
                              r"echo $(sed -n 's/^Pss: *\([0-9]*\).*/\1/p' $one/smaps_rollup) "
                              "$(busybox tr '\\0' ' ' <$one/cmdline); done 2>/dev/null | busybox sort -rn | grep -v '^$' | head -n 20 || true")
        exposure = shell.run("systemd-analyze security --no-pager | cat")
        memory = shell.run("grep -E '^(MemTotal|MemAvailable)' /proc/meminfo")
    bench.change({"mountpoints": before["mountpoints"]})
    a_day = round(written * 86_400 / bench.idle)
    check(a_day < WRITTEN_MAX, f"{a_day} bytes a day are written, {written} in {bench.idle} s: {writes}")
    return {"seconds": bench.idle, "bytes": written, "writes": count, "bytes_a_day": a_day, "when": writes,
            "pss_kib": processes.splitlines(), "exposure": exposure.splitlines(), "memory": memory.splitlines()}
