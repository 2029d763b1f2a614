#!/usr/bin/python3
"""What a network camera costs: CPU seconds per camera-minute of RTSP passthrough, beside ffmpeg -c copy.

Both fetch the same camera (gst-rtsp-server playing a recording in real time) over TCP at the same time, so that they
suffer alike from whatever else the machine does. fieldgate's figure is its whole process tree: gateway, worker and the
hop between them. ffmpeg writes FLV to /dev/null, fieldgate fills its ring and, in the second load, feeds one RTMP
player (whose own cost is not counted).

Prints a table and the goal; with --check it fails when the goal is missed.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MUST, STRETCH = 1.5, 1.0
# By then the worker and what looks at its picture have loaded what they need, once: a camera runs for years.
WARM_UP_SECONDS = 20


def film(folder, kilobits, seconds):
    path = pathlib.Path(folder) / "camera.mkv"
    rate = f"{kilobits}k"
    subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", "-y",
         "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25",
         "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", str(seconds),
         "-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "50", "-nal-hrd", "cbr",
         "-b:v", rate, "-maxrate", rate, "-bufsize", rate, "-c:a", "aac", "-b:a", "64k", str(path)],
        check=True)
    return path


def tree(pid):
    """A process and all below it."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                for child in children.read().split():
                    found += tree(int(child))
    except OSError:
        pass
    return found


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as stat:
                total += int(stat.read().split()[0])
    return total / 1e9


def memory_kib(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total


class Running:
    """Processes that end with the block."""

    def __init__(self):
        self.processes = []

    def start(self, *args, **more):
        process = subprocess.Popen(args, **more)
        self.processes.append(process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


def measure(options, source, with_player):
    with Running() as running, tempfile.TemporaryDirectory() as folder:
        server = running.start(
            "/usr/bin/python3", str(ROOT / "appliance/tests/peers/rtsp_server.py"), "--file", str(source), "--audio",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        url = f"rtsp://127.0.0.1:{server.stdout.readline().split()[1]}/main"
        config = pathlib.Path(folder) / "config.json"
        config.write_text(json.dumps({
            "rtmp": {"listen": ["127.0.0.1:0"]}, "admin": {"listen": ["127.0.0.1:0"]},
            "mountpoints": {"camera": {"source": {"kind": "rtsp", "url": url, "transport": "tcp"}}},
        }), encoding="utf-8")
        state = pathlib.Path(folder) / "state"
        state.mkdir()
        gateway = running.start(
            options.fieldgate, "run", "--state", str(state), "--config", str(config),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        rtmp = json.loads(gateway.stdout.readline())["listening"]["rtmp"][0]
        ffmpeg = running.start(
            "ffmpeg", "-nostdin", "-v", "error", "-rtsp_transport", "tcp", "-i", url, "-c", "copy",
            "-f", "flv", "-y", "/dev/null")
        if with_player:
            time.sleep(2)
            running.start("ffmpeg", "-nostdin", "-v", "error", "-i", f"rtmp://{rtmp}/live/camera",
                          "-c", "copy", "-f", "null", "-")
        time.sleep(WARM_UP_SECONDS)
        ours = tree(gateway.pid)
        if len(ours) < 2:
            raise SystemExit("camera: fieldgate has no worker; is it built without GStreamer?")
        before = cpu_seconds(ours), cpu_seconds([ffmpeg.pid])
        time.sleep(options.seconds)
        after = cpu_seconds(ours), cpu_seconds([ffmpeg.pid])
        per_minute = [60 / options.seconds * (late - early) for early, late in zip(before, after)]
        worker = [pid for pid in ours if pid != gateway.pid]
        return {"fieldgate": per_minute[0], "ffmpeg": per_minute[1], "ratio": per_minute[0] / per_minute[1],
                "worker_pss_kib": memory_kib(worker)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fieldgate", default=str(ROOT / "target/release/fieldgate"))
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kilobits", type=int, default=4000)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        source = film(folder, options.kilobits, options.seconds + WARM_UP_SECONDS + 20)
        for load, with_player in (("ring alone", False), ("one RTMP player", True)):
            results[load] = [measure(options, source, with_player) for _ in range(options.rounds)]
    print(f"camera of 1280x720 at 25 pictures/s and {options.kilobits / 1000} Mbit/s with AAC, RTSP over TCP,"
          f" {options.rounds} rounds of {options.seconds} s; CPU seconds per camera-minute")
    print(f"{'load':16} {'fieldgate':>10} {'ffmpeg':>8} {'ratio':>6}   ratios of the rounds")
    for load, rounds in results.items():
        middle = {key: statistics.median(entry[key] for entry in rounds) for key in rounds[0]}
        ratios = " ".join(f"{entry['ratio']:.2f}" for entry in rounds)
        print(f"{load:16} {middle['fieldgate']:10.2f} {middle['ffmpeg']:8.2f} {middle['ratio']:6.2f}   {ratios}"
              f"   worker {middle['worker_pss_kib'] / 1024:.1f} MB PSS")
    ratio = statistics.median(entry["ratio"] for entry in results["ring alone"])
    print(f"goal: ring alone at most {MUST} (stretch {STRETCH}): {'held' if ratio <= MUST else 'MISSED'}"
          f"{', stretch held' if ratio <= STRETCH else ''}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 1 if options.check and ratio > MUST else 0


if __name__ == "__main__":
    sys.exit(main())
