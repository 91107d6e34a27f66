#!/usr/bin/env python3
"""Runs the agent over a whole MVTec-layout test folder against a real mosquitto, and compares what a subscriber got with
the labels: the folder `good` is good, every other folder a kind of defect.

    tests/system/directory_against_mosquitto.py --agent target/release/ckaad-agent --bundle B.ckaad --images DATA/test

Needs mosquitto and mosquitto_sub. Exit code 0 when every event arrived exactly as the agent counted it, else 1.
"""

import argparse
import collections
import json
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

PREFIX = "ckaad/system/test/box"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, done, seconds=20):
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            sys.exit(f"in vain: {what}")
        time.sleep(0.05)


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def subscribe(port, topic, fmt, out):
    """A subscriber whose output goes to a file; ready when a marker has come back."""
    command = ["mosquitto_sub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic, "-t", "ready", "-F", fmt]
    process = subprocess.Popen(command, stdout=out.open("wb"))

    def ready():
        subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", "ready", "-m", "ready"], check=True)
        return b"ready" in out.read_bytes()

    wait_for("the subscriber", ready)
    return process


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--agent", required=True, type=pathlib.Path)
    arguments.add_argument("--bundle", required=True, type=pathlib.Path)
    arguments.add_argument("--images", required=True, type=pathlib.Path)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--json", type=pathlib.Path, help="write the numbers to this file, too")
    args = arguments.parse_args()

    images = {str(p.relative_to(args.images)): p.parent.name for p in args.images.rglob("*") if p.suffix.lower() in SUFFIXES}
    if not images:
        sys.exit(f"no image lies under {args.images}")

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        port = free_port()
        (folder / "broker.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        (folder / "agent.toml").write_text(f"""
[device]
topic_prefix = "{PREFIX}"
[mqtt]
host = "127.0.0.1"
port = {port}
[outbox]
path = "{folder}/outbox.sqlite"
[camera.test]
bundle = "{args.bundle.resolve()}"
threads = {args.threads}
source = "directory"
[camera.test.directory]
path = "{args.images.resolve()}"
labelled = true
""")
        broker = subprocess.Popen(["mosquitto", "-c", folder / "broker.conf"], stderr=subprocess.DEVNULL)
        processes = [broker]
        try:
            wait_for("mosquitto", lambda: listens(port))
            events, heatmaps = folder / "events", folder / "heatmaps"
            processes.append(subscribe(port, f"{PREFIX}/camera/test/anomaly", "%p", events))
            processes.append(subscribe(port, f"{PREFIX}/camera/test/heatmap", "%t %l %C %P", heatmaps))
            begun = time.monotonic()
            agent = subprocess.run([args.agent, "run", "--config", folder / "agent.toml"], stderr=subprocess.PIPE, text=True)
            seconds = time.monotonic() - begun
            peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            time.sleep(1)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()
        if agent.returncode != 0:
            sys.exit(f"the agent ended with {agent.returncode}:\n{agent.stderr}")
        received = [json.loads(line) for line in events.read_text().splitlines() if line.startswith("{")]
        pictures = sum("image/png" in line for line in heatmaps.read_text().splitlines())

    alerted = {event["data"]["frame_id"] for event in received if event["type"] == "opened"}
    by_kind = collections.Counter(images.values())
    hits_by_kind = collections.Counter(images[i] for i in alerted)
    defective = {i for i, kind in images.items() if kind != "good"}
    good = set(images) - defective
    hits, false_alarms = len(alerted & defective), len(alerted & good)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", agent.stderr)
    judged = re.search(r"test: (\d+) frames judged, (\d+) defective, (\d+) skipped.*?([\d.]+) ms a frame \(median\)", plain)
    sequences = sorted({event["data"]["sequence"] for event in received})
    complete = len(alerted) == int(judged[2]) == pictures and sequences == list(range(len(alerted)))
    numbers = {
        "images": len(images),
        "judged": int(judged[1]),
        "skipped": int(judged[3]),
        "events_by_agent": int(judged[2]),
        "events_received": len(alerted),
        "heatmaps_received": pictures,
        "defective": len(defective),
        "hits": hits,
        "misses": len(defective) - hits,
        "good": len(good),
        "false_alarms": false_alarms,
        "by_folder": {kind: [hits_by_kind[kind], count] for kind, count in sorted(by_kind.items())},
        "median_ms_a_frame": float(judged[4]),
        "wall_ms_a_frame": round(1000 * seconds / len(images), 2),
        "agent_peak_mib": round(float(re.search(r"peak memory ([\d.]+) MiB", plain)[1]), 1),
        "largest_child_peak_mib": round(peak_kib / 1024, 1),
    }
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=2) + "\n")
    print(f"{len(images)} images: {len(defective)} defective, {len(good)} good; {numbers['skipped']} skipped")
    print(f"hits {hits}, misses {numbers['misses']}, false alarms {false_alarms}")
    for kind, (alerts, count) in numbers["by_folder"].items():
        print(f"    {kind:<20} {alerts} of {count} alerted")
    print(f"{numbers['median_ms_a_frame']} ms a frame (median of the inspection), {numbers['wall_ms_a_frame']} ms with everything")
    print(f"peak memory {numbers['agent_peak_mib']} MiB")
    print(f"events: the agent counted {judged[2]}, the subscriber got {len(alerted)} and {pictures} heatmaps: "
          + ("complete" if complete else "NOT COMPLETE"))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
