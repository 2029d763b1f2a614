"""A program that ends or hangs is started again."""

import time

from hwtests.case import case, check


@case(after=("push",))
def restart(bench) -> dict:
    """Told so by its API, the program ends, is started again by systemd, and delivers."""
    bench.running()
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
