"""ckaad-agent against ONNX Runtime on the same file, in one run: the table of docs/performance.md.

    python3 -m venv v && v/bin/pip install -r tests/reference/requirements.txt
    v/bin/python benches/compare_onnxruntime.py --agent target/release/ckaad-agent [--threads 1,2] [--rounds 5] [--runs 20] [--exact] BUNDLE...

Both run the bundle's model.onnx, the agent on its first golden sample and ONNX Runtime on noise (neither's time depends on the picture), the same
number of threads each, in turns, so that other work on the machine meets both. Compared is the engine alone: u8 image in, anomaly map out. A round's time is the median of its runs; reported are the
median of the rounds and the ratio of the medians. On x86 without VNNI, ONNX Runtime's sums of two products saturate, so that its scores are others than
the model's; with --exact it is told to avoid that (session.x64quantprecision).
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tarfile
import time

import numpy as np
import onnxruntime


def model_of(bundle):
    with tarfile.open(bundle) as tar:
        return tar.extractfile("model.onnx").read()


def session_of(model, threads, exact):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def theirs(session, image, runs):
    times = []
    for _ in range(runs + 3):
        begun = time.perf_counter()
        session.run(None, {"image": image})
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times[3:])


def ours(agent, bundle, threads, runs):
    command = [agent, "bench", "--bundle", bundle, "--threads", str(threads), "--runs", str(runs), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["stages"]["engine"]["median_ms"]


def compare(agent, bundle, threads, rounds, runs, exact):
    """Medians of the rounds: the agent's milliseconds, and ONNX Runtime's."""
    session = session_of(model_of(bundle), threads, exact)
    shape = session.get_inputs()[0].shape
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    turns = [(ours(agent, bundle, threads, runs), theirs(session, image, runs)) for _ in range(rounds)]
    return (statistics.median(column) for column in zip(*turns))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--agent", required=True)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("bundles", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    print(f"ONNX Runtime {onnxruntime.__version__}\n")
    print("| bundle | threads | ckaad-agent ms | ONNX Runtime ms | ratio |\n|---|---|---|---|---|")
    for bundle in args.bundles:
        for threads in map(int, args.threads.split(",")):
            mine, other = compare(args.agent, bundle, threads, args.rounds, args.runs, args.exact)
            print(f"| {bundle.stem} | {threads} | {mine:.2f} | {other:.2f} | {mine / other:.2f} |", flush=True)


if __name__ == "__main__":
    main()
