"""The cases, by feature, in the order in which they are run: each starts where the one before left the machine."""

from hwtests.case import CASES, Case
from hwtests.cases import boot, cameras, heat, idle, power, streams, supervision, updates  # noqa: F401

ORDER = [
    "boot", "push", "encoders", "power_cut", "restart", "update", "inside", "watchdog", "wedged", "worker_killed", "killed",
    "camera", "reboot", "heat", "refusals", "full_disk", "bad_update", "mute_update", "idle", "cut_update", "cuts", "soak",
]


def in_order() -> list[Case]:
    return [CASES[name] for name in ORDER]
