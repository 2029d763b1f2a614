"""A program that ends or hangs is started again."""

import time

from hwtests.bench import DEMO
from hwtests.case import case, check
from hwtests.targets.image import LOADER


@case(needs=("systemd",), after=("push",))
def restart(bench) -> dict:
    """Told so by its API, the program ends, is started again, and delivers."""
    bench.running()
    # A push that has not begun cannot end.
    bench.delivers(time.monotonic())
    since = time.monotonic()
    bench.api("POST", "/api/v1/restart")
    first = bench.delivers(bench.demo.gone(bench.target.patience, since))
    return {"first_picture_after_s": round(first - since, 1)}


@case(needs=("shell", "systemd"), after=("push",))
def watchdog(bench) -> dict:
    """The program hangs: systemd ends it and starts it again, and it delivers."""
    with bench.shell() as shell:
        before = shell.run("systemctl show --value --property MainPID fieldgate")
        shell.run(f"kill -STOP {before}")
        began = time.monotonic()
        while (pid := shell.run("systemctl show --value --property MainPID fieldgate")) in (before, "0"):
            check(time.monotonic() - began < 300, "systemd did not start it again within 300 s")
            time.sleep(1)
        restarted = time.monotonic()
        result = shell.run("journalctl --no-pager --quiet --unit fieldgate | grep -i watchdog | tail -n 1")
        first = bench.delivers(restarted)
        return {"new_pid": pid != before, "restarted_after_s": round(restarted - began, 1),
                "first_picture_after_s": round(first - began, 1), "systemd": result[-150:]}


@case(needs=("shell", "stick"), after=("push",))
def wedged(bench) -> dict:
    """systemd itself hangs: the hardware watchdog resets the machine, and it delivers."""
    target = bench.running()
    since, one = target.gateway.mark(), target.gateway
    with bench.shell() as shell:
        booted = shell.run("cat /proc/sys/kernel/random/boot_id")
        # The kernel stops PID 1 and whatever is in its control group; the shell is in another.
        shell.run("echo 1 > /sys/fs/cgroup/init.scope/cgroup.freeze")
        began = time.monotonic() - one.began
    loader, said = one.said(LOADER, target.patience, since)
    bench.hang_up()
    first = bench.delivers(one.began + loader) - one.began
    with bench.shell() as shell:
        check(shell.run("cat /proc/sys/kernel/random/boot_id") != booted, "the machine did not start anew")
    return {"reset_after_s": round(loader - began, 1), "first_picture_after_s": round(first - began, 1), "loader": said}


@case(needs=("shell",), after=("push",))
def worker_killed(bench) -> dict:
    """The worker of the test picture is killed: a new one takes its place, the gateway is the same, and it delivers."""
    with bench.shell() as shell:
        before = bench.status()
        since = time.monotonic()
        shell.run(f"kill -KILL {before['workers'][DEMO]['pid']}")
        now = until_new(bench, lambda: bench.status()["workers"].get(DEMO, {}).get("pid", 0), before["workers"][DEMO]["pid"])
        after = bench.status()
        check(after["started"] == before["started"], "the gateway was started again as well")
        first = bench.delivers(now)
        return {"new_worker_after_s": round(now - since, 1), "first_picture_after_s": round(first - since, 1)}


@case(needs=("shell", "supervisor"), after=("push",))
def killed(bench) -> dict:
    """The program is killed: it is started again, its workers end with it, and it delivers."""
    with bench.shell() as shell:
        before = bench.status()
        worker = before["workers"][DEMO]["pid"]
        gateway = shell.run(f"sed -n 's/^PPid:[^0-9]*//p' /proc/{worker}/status")
        since = time.monotonic()
        shell.run(f"kill -KILL {gateway}")
        now = until_new(bench, lambda: bench.status()["started"], before["started"])
        left = shell.run(f"grep -l fieldgate /proc/{worker}/comm 2>/dev/null || true")
        check(not left, f"the worker {worker} outlived the program")
        first = bench.delivers(now)
        return {"answers_after_s": round(now - since, 1), "first_picture_after_s": round(first - since, 1)}


def until_new(bench, asked, before) -> float:
    """Waits until the gateway answers, with something else than before; when."""
    deadline, seen = time.monotonic() + bench.target.patience, None
    while time.monotonic() < deadline:
        try:
            seen = asked()
            if seen and seen != before:
                return time.monotonic()
        except OSError as error:
            seen = error
        time.sleep(0.3)
    raise TimeoutError(f"still {seen} after {bench.target.patience:.0f} s")
