"""Updates of the image: by a USB stick, from the page, by URL; good, bad and refused ones, and power cuts in between.

Whatever is tried, the machine runs the slot that it should afterwards, and says why."""

import http.server
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time

from hwtests import machine
from hwtests.bench import DEMO
from hwtests.case import case, check
from hwtests.targets.image import LOADER

KEYS = pathlib.Path(os.environ.get("FIELDGATE_KEYS", pathlib.Path.home() / ".fieldgate-keys"))
GOOD, BAD, MUTE = "9.9.8-trial", "9.9.9-trial", "9.9.9-mute"
OTHER = {"A": "B", "B": "A"}
# Seconds after which RAUC writes what it was told to install.
BEGUN = 5
STATE = "/usr/lib/fieldgate/boot-state show"


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **more).stdout


def look(bench) -> dict:
    return bench.api("GET", "/api/v1/update")[0]


def until(bench, what: str, is_so) -> dict:
    """Waits until what the gateway says of its firmware is so; what it says then."""
    deadline, view = time.monotonic() + bench.target.patience, {}
    while time.monotonic() < deadline:
        try:
            if is_so(view := look(bench)):
                return view
        except (OSError, AssertionError):
            # It is being started again.
            pass
        time.sleep(1)
    raise TimeoutError(f"waited {bench.target.patience} s for {what}; it says {view}")


def has_known(bench) -> dict:
    """What the gateway says once RAUC has told it of the slots."""
    return until(bench, "the slots", lambda view: view.get("firmware"))


def install(bench, bundle: pathlib.Path, **wish):
    """As the page does it."""
    bench.gateway().send_bundle(bundle)
    bench.api("POST", "/api/v1/update/install", wish)


def ends_badly(bench, version: str, running: str, patience: float) -> str:
    """The new firmware is not kept, and the slot from before runs again; the reason that everybody is told."""
    target = bench.target
    before = target.patience
    target.patience = patience
    view = until(bench, f"version {version} to be given up",
                 lambda view: view.get("firmware") and view["last"]["version"] == version and view["last"]["phase"] == "failed")
    target.patience = before
    check(view["firmware"]["booted"] == running and view["firmware"]["primary"] == running, f"not back in {running}: {view}")
    slots = {slot["name"]: slot["state"] for slot in view["firmware"]["slots"]}
    check(slots == {running: "good", OTHER[running]: "bad"}, f"{slots}")
    told = [notice["text"] for notice in bench.status()["notices"] if notice["code"] == "update_failed"]
    check(len(told) == 1 and view["last"]["reason"] in told[0], f"the notice says {told}")
    return view["last"]["reason"]


@case(needs=("stick",), after=("push",))
def update(bench) -> dict:
    """A good update from a stick goes through the gateway, runs in the other slot, is kept as all delivers, and has the
    config. The stick stays in meanwhile and is not installed again."""
    target = bench.target
    since, installed = target.install(GOOD)
    one = target.gateway
    loader, slot = one.said(LOADER, target.patience, since)
    # The start before may not have given A its try back yet.
    tries = re.fullmatch("slot B of (primary B, tries left A [89] B )2", slot)
    check(tries, slot)
    first = bench.delivers(one.began + loader) - one.began - loader
    one.said(rf"update: version {GOOD} runs already", target.patience, since)
    one.unplug()
    # What was written is what the next start reads.
    bench.inside_until("all tries are back", STATE, tries[1] + "9")
    last = until(bench, "it to be kept", lambda view: view.get("last", {}).get("phase") == "good")["last"]
    check((last["version"], last["by"]) == (GOOD, "a USB stick"), f"the page says {last}")
    return {"installed_after_s": installed, "first_picture_after_loader_s": round(first, 1)}


@case(needs=("stick",), after=("push", "update"))
def bad_update(bench) -> dict:
    """An update from the page whose program ends at once: after its tries the slot that ran before runs again."""
    target = bench.running()
    slot = has_known(bench)["firmware"]["booted"]
    # A program for this machine that is not ours: it ends at once, whatever it is told.
    bundle = target.bundle(BAD, "--program", target.work / "base/bin/busybox")
    since = target.gateway.mark()
    install(bench, bundle)
    one, new = target.gateway, OTHER[slot]
    began, _ = one.said(rf"slot {new} of primary {new}, .*{new} 2", target.patience, since)
    for left in (1, 0):
        one.said(rf"slot {new} of primary {new}, .*{new} {left}", target.patience, since)
    back, _ = one.said(rf"slot {slot} of primary {new}, .*{new} 0", target.patience, since)
    first = bench.delivers(one.began + back) - one.began
    reason = ends_badly(bench, BAD, slot, target.patience)
    check("did not get as far as starting the gateway" in reason, reason)
    return {"old_slot_after_s": round(back - began, 1), "first_picture_after_s": round(first - began, 1), "reason": reason}


@case(needs=("stick",), after=("push", "update"))
def mute_update(bench) -> dict:
    """An update that the config names by URL, whose program starts and relays nothing: it is not kept."""
    target = bench.running()
    slot = has_known(bench)["firmware"]["booted"]
    bundle = target.bundle(MUTE, "--setting", "PrivateNetwork=yes")
    with served(bundle) as port:
        since = target.gateway.mark()
        bench.change({"update": {"hold": "10s", "within": "1m", "wanted": {
            "version": MUTE, "url": f"http://{target.here}:{port}/{bundle.name}"}}})
        one = target.gateway
        began, _ = one.said(rf"slot {OTHER[slot]} of primary {OTHER[slot]}", target.patience, since)
    back, _ = one.said(rf"slot {slot} of primary", target.patience, since)
    first = bench.delivers(one.began + back) - one.began
    bench.change({"update": None})
    reason = ends_badly(bench, MUTE, slot, target.patience)
    check("did not within" in reason and f"{DEMO}, push" in reason, reason)
    return {"old_slot_after_s": round(back - began, 1), "first_picture_after_s": round(first - began, 1), "reason": reason}


class served:
    """A file on a server of this machine that answers ranges; the server's port."""

    def __init__(self, file: pathlib.Path):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                size = file.stat().st_size
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
                first = int(asked[1])
                last = min(int(asked[2] or size - 1), size - 1)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.send_header("Content-Length", str(last - first + 1))
                self.send_header("ETag", f'"{size}"')
                self.end_headers()
                with file.open("rb") as content:
                    content.seek(first)
                    self.wfile.write(content.read(last - first + 1))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> int:
        self.thread.start()
        return self.server.server_port

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@case(needs=("stick", "power"), after=("push",))
def cut_update(bench) -> dict:
    """The power is cut while an update is sent, installed, started and judged: the right slot runs each time, and in the
    end the new one is kept. It is an older version, which is taken only when that is asked for."""
    target = bench.running()
    bundle, gateway = target.work / "fieldgate.raucb", bench.gateway
    slot = has_known(bench)["firmware"]["booted"]
    new, ran = OTHER[slot], {}

    def cut_and_start(what: str, wanted: str):
        target.cut()
        target.on()
        _, ran[what] = target.gateway.said(LOADER, target.patience)
        check(ran[what].startswith(f"slot {wanted}"), f"after a power cut {what}: {ran[what]}")

    sent = gateway().send_bundle(bundle, until=0.3)
    cut_and_start("while it is sent", slot)
    target.running()
    kept = look(bench)["upload"]["received"]
    check(0 <= kept <= sent, f"{kept} of {sent} bytes are there")

    gateway().send_bundle(bundle)
    try:
        bench.api("POST", "/api/v1/update/install")
        check(False, "an older version was installed without being asked for")
    except AssertionError as error:
        check("409" in str(error) and "downgrade" in str(error), str(error))
    bench.api("POST", "/api/v1/update/install", {"downgrade": True})
    # RAUC itself may be too busy with it to tell what it does.
    until(bench, "it to be written", lambda view: view["last"]["phase"] == "installing")
    time.sleep(BEGUN)
    cut_and_start("while it is written", slot)
    target.running()
    view = until(bench, "the end of what was cut off", lambda view: view.get("firmware") and view["last"]["phase"] == "refused")
    check("cut off" in view["last"]["reason"], f"{view['last']}")
    states = {one["name"]: one["state"] for one in view["firmware"]["slots"]}
    check(states[slot] == "good", f"{states}")

    since = target.gateway.mark()
    install(bench, bundle, downgrade=True)
    target.gateway.said(rf"slot {new} of primary {new}, .*{new} 2", target.patience, since)
    cut_and_start("as the new one starts", new)
    until(bench, "it to be judged", lambda view: view["last"]["phase"] == "trial")
    cut_and_start("while it is judged", new)
    began = time.monotonic()
    view = until(bench, "it to be kept", lambda view: view.get("firmware") and view["last"]["phase"] == "good")
    check(view["firmware"]["booted"] == new and view["firmware"]["primary"] == new, f"{view['firmware']}")
    bench.delivers(began)
    target.has_shell = None
    return {"kept_of_30_percent": kept, **ran}


@case(needs=("stick", "shell"), after=("push",))
def full_disk(bench) -> dict:
    """A bundle that the disk has no room for is refused before it is sent, and one that the room goes for in between too."""
    target, size = bench.running(), 200 << 20
    with bench.shell() as shell:
        free = int(shell.run("set -- $(busybox df -k /data | busybox tail -n 1); echo $4")) << 10
        # What is left is less than the bundle with the reserve of 64 MiB.
        shell.run(f"busybox fallocate -l {free - size} /data/filler")
        try:
            bench.api("POST", "/api/v1/update/upload", {"size": size, "label": "full"})
            check(False, "a bundle was taken that the disk has no room for")
        except AssertionError as error:
            said = str(error)
            check("413" in said and "bytes are needed" in said, said)
        bench.api("POST", "/api/v1/update/upload", {"size": size // 2, "label": "full"})
        shell.run(f"busybox fallocate -l {64 << 20} /data/filler2")
        try:
            for offset in range(0, size // 2, 1 << 20):
                bench.api("PUT", f"/api/v1/update/upload?offset={offset}", bytes(1 << 20))
            check(False, "pieces were taken that the disk has no room for")
        except AssertionError as error:
            check("bytes are needed" in str(error), str(error))
        shell.run("rm /data/filler /data/filler2")
        bench.api("DELETE", "/api/v1/update/upload")
    check(look(bench).get("upload") is None, "the upload is still there")
    return {"said": said, "taken_before_the_room_went": offset}


@case(needs=("stick",), after=("push",))
def refusals(bench) -> dict:
    """Updates that are truncated, not signed, signed by somebody else, or for another machine are not installed, neither
    from a stick nor from the page."""
    target = bench.running()
    slot = has_known(bench)["firmware"]["booted"]
    said = {}
    for name, (bundle, why) in bad_bundles(target).items():
        from_stick = target.refused(bundle, why)
        try:
            install(bench, bundle, downgrade=True)
            check(False, f"{name}: it was taken from the page")
        except AssertionError as error:
            check("409" in str(error) and why in str(error).lower(), f"{name}: {error}")
            said[name] = {"stick": from_stick, "page": str(error)}
    view = has_known(bench)
    check(view["firmware"]["booted"] == slot and view["firmware"]["primary"] == slot, f"{view['firmware']}")
    bench.api("DELETE", "/api/v1/update/upload")
    return said


def bad_bundles(target) -> dict[str, tuple[pathlib.Path, str]]:
    """What is wrong with each: the bundle, and a word of its refusal."""
    good = (target.work / "fieldgate.raucb").read_bytes()
    other = target.work / "other"
    run("rm", "-rf", other)
    run("mkdir", "-p", other / "content")
    truncated = other / "truncated.raucb"
    truncated.write_bytes(good[: len(good) // 2])
    for name in ("root.img", "boot.img"):
        (other / "content" / name).write_bytes(os.urandom(100_000))
    # Not in the checkout, where no private key belongs.
    folder_of_keys = tempfile.TemporaryDirectory()
    keys = pathlib.Path(folder_of_keys.name) / "keys"
    run(machine.ROOT / "yocto/meta-fieldgate/scripts/make-keys", keys, 1)
    # RAUC tells no more of it than that.
    not_believed = "cut short, changed, or not signed"
    made = {"truncated": (truncated, not_believed)}
    kinds = (("stranger", "fieldgate-arm64-uefi", keys, not_believed),
             ("machine", "fieldgate-other", KEYS, "is for fieldgate-other"),
             ("unsigned", "fieldgate-arm64-uefi", None, not_believed))
    for name, compatible, folder, why in kinds:
        (other / "content/manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion=9\n[bundle]\nformat=verity\n"
            "[image.rootfs]\nfilename=root.img\n[image.boot]\nfilename=boot.img\n")
        bundle = other / f"{name}.raucb"
        if folder:
            run("rauc", "bundle", f"--cert={folder}/bundle.cert.pem", f"--key={folder}/bundle.key.pem",
                f"--keyring={folder}/keyring.pem", other / "content", bundle)
        else:
            run("mksquashfs", other / "content", bundle, "-quiet", "-no-progress")
        made[name] = (bundle, why)
    folder_of_keys.cleanup()
    return made
