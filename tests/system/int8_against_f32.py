#!/usr/bin/env python3
"""Exports one trained run in f32 and in int8, judges a test set through both bundles, and says what int8 costs.

    tests/system/int8_against_f32.py --train target/release/ckaad-train --run runs/magtile --data DATA [--limit 0.01]

Exit code 0 when the image AUROC falls by at most --limit, else 1.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--train", default="target/release/ckaad-train", help="the trainer's binary")
parser.add_argument("--run", required=True, help="folder that fit wrote")
parser.add_argument("--data", required=True, help="data set in MVTec AD's layout")
parser.add_argument("--limit", type=float, default=0.01, help="largest loss of image AUROC")
arguments = parser.parse_args()

auroc = {}
with tempfile.TemporaryDirectory() as folder:
    for precision in ("f32", "int8"):
        bundle, report = (str(pathlib.Path(folder) / f"{precision}.{end}") for end in ("ckaad", "json"))
        export = [arguments.train, "export", "--run", arguments.run, "--out", bundle, "--precision", precision]
        subprocess.run(export, check=True)
        subprocess.run(
            [arguments.train, "evaluate", "--bundle", bundle, "--data", arguments.data, "--json", report], check=True
        )
        auroc[precision] = json.loads(pathlib.Path(report).read_text())["image"]["auroc"]

loss = auroc["f32"] - auroc["int8"]
print(f"image AUROC: f32 {auroc['f32']:.4f}, int8 {auroc['int8']:.4f}, int8 costs {loss:+.4f} (limit {arguments.limit})")
sys.exit(loss > arguments.limit)
