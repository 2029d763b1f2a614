"""Heat: what the gateway reads, and leaves out, while the processor is busy."""

import time

from hwtests.case import Skip, case, check

LOOK = 2.0
# Of a thermal zone's limit, in Celsius: beyond this the board is not pushed any further.
TOO_HOT = 110


@case(needs=("shell",), after=("push",))
def heat(bench) -> dict:
    """The processor is kept busy for the time that --heat says: temperatures, and what is left out for it."""
    bench.running()
    before = bench.status()["capacity"]
    if before.get("temperature_c") is None:
        raise Skip("no thermal zone: the status names no temperature")
    temperatures, shed, began = [before["temperature_c"]], set(), time.monotonic()
    with bench.shell() as shell:
        zones = shell.run("for zone in /sys/class/thermal/thermal_zone*; do echo $(cat $zone/type $zone/temp); done")
        # Each ends by itself, also when this run is ended.
        shell.run(f"for core in $(seq $(nproc)); do timeout {bench.heat:.0f} sh -c 'while :; do :; done' "
                  "</dev/null >/dev/null 2>&1 & done")
        while time.monotonic() - began < bench.heat:
            time.sleep(LOOK)
            now = bench.status()["capacity"]
            temperatures.append(now["temperature_c"])
            shed |= {one["reason"] for one in now["shed"]}
            check(now["temperature_c"] < TOO_HOT, f"{now['temperature_c']} degrees: it is not cooled enough to go on")
    bench.delivers(time.monotonic())
    return {"seconds": round(time.monotonic() - began), "zones": zones.splitlines(), "limit_c": before["temperature_limit_c"],
            "first_c": temperatures[0], "most_c": max(temperatures), "last_c": temperatures[-1], "left_out": sorted(shed),
            "events": bench.status()["capacity"]["events"][-5:]}
