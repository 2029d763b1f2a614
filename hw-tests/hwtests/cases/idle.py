"""What the machine does when nothing happens: claimed, with no camera and no upstream."""

import time

from hwtests.case import Skip, case, check

# Bytes a day that an idle machine may write, at most.
WRITTEN_MAX = 1_000_000


@case(needs=("slots", "shell", "systemd"), after=("push",))
def idle(bench) -> dict:
    """Bytes written to the medium, open ports, units' exposure, processes and memory of an idle machine."""
    if not bench.idle:
        raise Skip("asked for with --idle, such as --idle 30m")
    target = bench.running()
    before, _ = bench.api("GET", "/api/v1/config")
    bench.change({"mountpoints": {name: None for name in before["mountpoints"]}})
    with bench.shell() as shell:
        # What was written until now is no part of it.
        shell.run("busybox sync")
        time.sleep(60)
        writes = []
        end = time.monotonic() + bench.idle
        last = first = target.gateway.written()
        while time.monotonic() < end:
            time.sleep(10)
            now = target.gateway.written()
            if now != last:
                writes.append([round(bench.idle - (end - time.monotonic())), now[0] - last[0]])
            last = now
        written, count = last[0] - first[0], last[1] - first[1]
        processes = shell.run("for one in /proc/[0-9]*; do [ -e $one/smaps_rollup ] && "
                              r"echo $(sed -n 's/^Pss: *\([0-9]*\).*/\1/p' $one/smaps_rollup) "
                              "$(busybox tr '\\0' ' ' <$one/cmdline); done 2>/dev/null | busybox sort -rn | grep -v '^$' | head -n 20 || true")
        exposure = shell.run("systemd-analyze security --no-pager | cat")
        memory = shell.run("grep -E '^(MemTotal|MemAvailable)' /proc/meminfo")
        # What is written once an hour may or may not have been in the time.
        hourly = shell.run("grep -rs SaveIntervalSec /usr/lib/systemd/timesyncd.conf.d | cat")
    bench.change({"mountpoints": before["mountpoints"]})
    a_day = round(written * 86_400 / bench.idle)
    check(a_day < WRITTEN_MAX, f"{a_day} bytes a day are written, {written} in {bench.idle} s: {writes}")
    return {"seconds": bench.idle, "bytes": written, "writes": count, "bytes_a_day": a_day, "when": writes,
            "pss_kib": processes.splitlines(), "exposure": exposure.splitlines(), "memory": memory.splitlines(),
            "clock": hourly}
