"""Updates of the image by a USB stick: good, bad and refused ones."""

import os
import pathlib
import subprocess

from hwtests import machine
from hwtests.case import case, check
from hwtests.targets.image import BOOT, LOADER

KEYS = pathlib.Path(os.environ.get("FIELDGATE_KEYS", pathlib.Path.home() / ".fieldgate-keys"))
GOOD, BAD = "9.9.8-trial", "9.9.9-trial"


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, **more).stdout


@case(needs=("stick",), after=("push",))
def update(bench) -> dict:
    """A good update from a stick runs in the other slot, becomes good, and has the config."""
    target = bench.target
    since, installed = target.install(GOOD)
    one = target.gateway
    loader, slot = one.said(LOADER, target.patience, since)
    check(slot == "slot B of primary B, tries left A 9 B 2", slot)
    first = bench.delivers(one.began + loader) - one.began - loader
    one.said(rf"update: version {GOOD} runs already", target.patience, since)
    one.unplug()
    # What was written is what the next start reads.
    bench.inside_until("all tries are back", "/usr/lib/fieldgate/boot-state show", "primary B, tries left A 9 B 9")
    return {"installed_after_s": installed, "first_picture_after_loader_s": round(first, 1)}


@case(needs=("stick",), after=("push", "update"))
def bad_update(bench) -> dict:
    """An update whose program ends at once: after its tries the slot that ran before runs again."""
    target = bench.running()
    # A program for this machine that is not ours: it ends at once, whatever it is told.
    since, _ = target.install(BAD, "--program", target.work / "base/bin/busybox")
    one = target.gateway
    began, _ = one.said(r"slot A of primary A, tries left A 2 B 9", target.patience, since)
    for left in (1, 0):
        one.said(rf"slot A of primary A, tries left A {left} B 9", target.patience, since)
    back, _ = one.said(r"slot B of primary A, tries left A 0 B 8", target.patience, since)
    first = bench.delivers(one.began + back) - one.began
    one.said(rf"update: version {BAD} was tried already", target.patience, since)
    one.unplug()
    return {"old_slot_after_s": round(back - began, 1), "first_picture_after_s": round(first - began, 1)}


@case(needs=("stick",), after=("boot",))
def refusals(bench) -> dict:
    """Updates that are truncated, signed by somebody else, or for another machine are not installed."""
    target = bench.running()
    good = (target.work / "fieldgate.raucb").read_bytes()
    truncated = target.work / "truncated.raucb"
    truncated.write_bytes(good[: len(good) // 2])
    said = {"truncated": target.refused(truncated, "signature")}

    other = target.work / "other"
    run("rm", "-rf", other)
    run("mkdir", "-p", other / "content")
    for name in ("root.img", "boot.img"):
        (other / "content" / name).write_bytes(os.urandom(100_000))
    keys = pathlib.Path(run("mktemp", "-d").strip()) / "keys"
    run(machine.ROOT / "yocto/meta-fieldgate/scripts/make-keys", keys, 1)
    for name, compatible, folder in (("stranger", "fieldgate-arm64-uefi", keys), ("machine", "fieldgate-other", KEYS)):
        (other / "content/manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion=9\n[bundle]\nformat=verity\n"
            "[image.rootfs]\nfilename=root.img\n[image.boot]\nfilename=boot.img\n")
        bundle = other / f"{name}.raucb"
        run("rauc", "bundle", f"--cert={folder}/bundle.cert.pem", f"--key={folder}/bundle.key.pem",
            f"--keyring={folder}/keyring.pem", other / "content", bundle)
        said[name] = target.refused(bundle, {"stranger": "verif", "machine": "another kind"}[name])
    run("rm", "-rf", keys.parent)
    return said
