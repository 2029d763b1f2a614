"""What a machine does when nothing happens: claimed, with no camera and no upstream."""

import time

from hwtests import look
from hwtests.case import Skip, case, check

# Bytes a day that an idle machine may write, at most.
WRITTEN_MAX = 1_000_000


@case(needs=("shell", "systemd"), after=("push",))
def idle(bench) -> dict:
    """Bytes that an idle machine writes in a day, from a trace of each write to its medium; processes, memory, units'
    exposure."""
    if not bench.idle:
        raise Skip("asked for with --idle, such as --idle 30m")
    before, _ = bench.api("GET", "/api/v1/config")
    bench.change({"mountpoints": {name: None for name in before["mountpoints"]}})
    with bench.shell() as shell:
        # What was written until now is no part of it.
        shell.run("busybox sync")
        time.sleep(60)
        is_traced = look.begin_trace(shell)
        began, first = time.monotonic(), look.written(shell)
        time.sleep(bench.idle)
        last, seconds = look.written(shell), time.monotonic() - began
        trace = look.end_trace(shell) if is_traced else []
        told = {"pss_kib": look.processes(shell), "exposure": look.exposure(shell), "memory": look.memory(shell)}
    bench.change({"mountpoints": before["mountpoints"]})
    # The disks' own counters miss nothing; the trace says who, and when.
    written, count = last[0] - first[0], last[1] - first[1]
    a_day = round(written * 86_400 / seconds)
    start = trace[0][0] if trace else 0
    when = [[round(at - start, 1), size, who] for at, size, who in trace]
    by = look.by_process(trace) if is_traced else "this kernel traces no writes"
    check(a_day < WRITTEN_MAX, f"{a_day} bytes a day are written, {written} in {seconds:.0f} s: {by}")
    return {"seconds": round(seconds), "bytes": written, "writes": count, "bytes_a_day": a_day, "by": by,
            "trace": when[:1000], **told}
