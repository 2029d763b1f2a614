"""Cameras and encoders, from the device file to this machine."""

import time

from hwtests.bench import OURS
from hwtests.case import Skip, case, check

# How long cameras on the network have to answer.
SEARCH = 10.0
# What the plan is asked for beside the sizes that are tried.
PLANNED = ((640, 360, 30), (1280, 720, 30), (1920, 1080, 30))


@case(needs=("cameras",), after=("push",))
def camera(bench) -> dict:
    """Every camera that the gateway finds: added, captured, encoded and pushed, removed again."""
    target = bench.running()
    target.bring_cameras()
    found = cameras(bench)
    if not found:
        raise Skip("the gateway finds no camera")
    told = {name_of(one): one_camera(bench, one) for one in found}
    if not any("pictures" in one for one in told.values()):
        raise Skip(f"no camera that was found can be added: {told}")
    return told


def cameras(bench) -> list[dict]:
    """Local ones are there at once; those on the network have a while to answer."""
    if bench.target.has_network:
        bench.api("POST", "/api/v1/discovery/scan", {})
        time.sleep(SEARCH)
    answer, _ = bench.api("GET", "/api/v1/discovery")
    return answer["cameras"]


def name_of(one: dict) -> str:
    return " ".join([*one["names"][:1], f"({one['id']})"])


def one_camera(bench, one: dict) -> dict:
    if one["found_by"]["v4l2"]:
        source = {"kind": "v4l2", "device": one["device"], **bench.target.camera_wish}
    elif "main" in one and one["main"]["checked"] and one["login"] == "not_needed":
        source = {"kind": "rtsp", "url": one["main"]["url"]}
    else:
        return {"why": f"it shows no stream without a login ({one['login']}); add it by hand and run the case soak"}
    name, began = OURS + "camera", time.monotonic()
    bench.change({"mountpoints": {name: {"source": source, "push": bench.push_to(bench.yard)}}})
    try:
        first = bench.delivers(began, bench.yard)
        gaps = bench.not_locked_in(name) if source["kind"] == "v4l2" else []
        check(not gaps, f"the worker is not locked in: {gaps}")
        shown = bench.status()["mountpoints"][name]["source"]
    finally:
        bench.change({"mountpoints": {name: None}})
    return {"pictures": bench.pictures, "first_after_change_s": round(first - began, 1), "described": shown.get("described"),
            "encoder": shown.get("encoder", {}).get("name")}


@case(after=("push",))
def encoders(bench) -> dict:
    """Which encoders there are, why each other one is not used, and what the one that is manages of each size."""
    bench.running()
    status = bench.status()
    check("encoder" in status, "no encoder was tried, though a test picture is encoded")
    chosen = status["encoder"]
    sizes = {f"{width}x{height} at {rate}": one_size(bench, width, height, rate, is_tried)
             for (width, height, rate), is_tried in matrix(bench.target.sizes).items()}
    return {"encoder": chosen["name"], "hardware": chosen["hardware"], "reason": chosen["reason"],
            "not_used": dict(chosen["tried"]), "sizes": sizes,
            "sessions_limit": status["capacity"]["encoder_sessions_limit"]}


def matrix(tried: tuple) -> dict[tuple, bool]:
    return {size: True for size in tried} | {size: False for size in PLANNED if size not in tried}


def one_size(bench, width: int, height: int, rate: int, is_tried: bool) -> dict:
    name = OURS + "size"
    source = {"kind": "test", "width": width, "height": height, "frame_rate": rate, "audio": False}
    patch = {"mountpoints": {name: {"source": source, "push": bench.push_to(bench.yard)}}}
    config, _ = bench.api("GET", "/api/v1/config")
    config["mountpoints"] |= patch["mountpoints"]
    plan, _ = bench.api("POST", "/api/v1/plan", config)
    step = next(one for one in plan["mountpoints"] if one["name"] == name)["source"]["video"]
    told = {"encoder": step.get("encoder"), "planned": step.get("cost")}
    if plan.get("over"):
        return {**told, "why": f"more than this machine manages: {plan['over']}"}
    if not is_tried:
        return told
    began = time.monotonic()
    bench.change(patch)
    try:
        first = bench.delivers(began, bench.yard)
        took = time.monotonic() - first
        used = bench.status()["mountpoints"][name]["source"]["encoder"]["name"]
    finally:
        bench.change({"mountpoints": {name: None}})
    return {**told, "encoder": used, "first_after_change_s": round(first - began, 1), "pictures": bench.pictures,
            "pictures_per_s": round(bench.pictures / took, 1)}
