"""The start of the machine, and what it looks like inside then."""

import time

from hwtests import look
from hwtests.bench import DEMO
from hwtests.case import case, check


def times_of_start(bench, since: float) -> dict:
    """From the power, or the order to restart, to health and to the first picture that arrives here."""
    # A picture tells by itself when it came, so these may be waited for one after the other.
    bench.running()
    healthy = time.monotonic()
    by_kmp, first = bench.delivers(since, bench.kmp), bench.delivers(since)
    kernel = bench.target.kernel_began()
    told = {"healthy_after_s": healthy - since, "first_picture_after_s": first - since,
            "first_picture_by_kmp_after_s": by_kmp - since}
    if kernel is not None:
        told |= {"kernel_after_s": kernel - since, "healthy_after_kernel_s": healthy - kernel,
                 "first_picture_after_kernel_s": first - kernel}
    return {**{name: round(value, 1) for name, value in told.items()}, "kmp": bench.kmp.figures()}


@case(needs=("flash",))
def boot(bench) -> dict:
    """A medium that was just flashed boots, makes its data partition, and answers."""
    target, began = bench.target, time.monotonic()
    target.on()
    target.running()
    healthy, kernel = time.monotonic(), target.kernel_began()
    return {"kernel_after_s": round(kernel - began, 1), "healthy_after_kernel_s": round(healthy - kernel, 1),
            **target.is_as_flashed()}


@case(needs=("shell", "systemd"), after=("push",))
def reboot(bench) -> dict:
    """Told to restart in order, the machine does, and delivers."""
    with bench.shell() as shell:
        since = time.monotonic()
        # Later, so that the answer to this one still comes.
        shell.run("systemd-run --quiet --on-active=1 systemctl reboot")
    gone = bench.demo.gone(bench.target.patience, since)
    return times_of_start(bench, gone)


@case(needs=("shell", "systemd"), after=("push",))
def inside(bench) -> dict:
    """The running machine: only documented ports, no failed unit, a worker that is locked in; processes, memory, bytes
    written, units' exposure, the times of the start."""
    with bench.shell() as shell:
        shell.run("systemctl is-system-running --wait >/dev/null || true")
        failed = shell.run("systemctl --failed --no-legend --plain")
        check(not failed, f"failed units: {failed}")
        gateway = int(shell.run("systemctl show --value --property MainPID fieldgate"))
        memory = shell.run(r"for one in $(cat /sys/fs/cgroup/system.slice/fieldgate.service/cgroup.procs); do "
                           r"echo $one $(sed -n 's/^Pss: *\([0-9]*\).*/\1/p' /proc/$one/smaps_rollup); done")
        pss = {int(pid): int(kib) for pid, kib in (line.split() for line in memory.splitlines())}
        started = shell.run("systemctl show --property ExecMainStartTimestampMonotonic "
                            "--property ActiveEnterTimestampMonotonic fieldgate")
        at = {line.split("=")[0]: int(line.split("=")[1]) for line in started.splitlines()}
        # A search for cameras has ports of its own for some seconds.
        ports = look.listening(shell)
        time.sleep(15)
        ports &= look.listening(shell)
        strange = look.not_documented(ports, look.documented(look.DOCUMENT.read_text()))
        # A board's own system has services of its own.
        check(bench.target.is_borrowed or not strange, f"these listen, and {look.DOCUMENT.name} does not say so: {strange}")
        gaps = bench.not_locked_in(DEMO)
        check(not gaps, f"the worker is not locked in: {gaps}")
        return {
            "gateway_pss_kib": pss[gateway], "other_pss_kib": sorted(kib for pid, kib in pss.items() if pid != gateway),
            "start_to_ready_ms": (at["ActiveEnterTimestampMonotonic"] - at["ExecMainStartTimestampMonotonic"]) // 1000,
            "listening": sorted(port for port, _ in ports), "not_documented": strange, "boot": shell.run("systemd-analyze time").splitlines()[0],
            "slowest": shell.run("systemd-analyze blame --no-pager | head -n 8").splitlines(),
            "written_bytes_since_start": look.written(shell)[0], "pss_kib": look.processes(shell),
            "memory": look.memory(shell), "exposure": look.exposure(shell),
        }
