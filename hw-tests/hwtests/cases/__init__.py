"""The cases, by feature, in the order in which they are run: each starts where the one before left the machine."""

from hwtests.case import CASES, Case
from hwtests.cases import boot, cameras, heat, power, streams, supervision, updates  # noqa: F401

ORDER = [
    "boot", "push", "encoders", "power_cut", "restart", "update", "inside", "watchdog", "worker_killed", "killed", "camera",
    "reboot", "heat", "bad_update", "refusals", "cuts", "soak",
]


def in_order() -> list[Case]:
    return [CASES[name] for name in ORDER]
