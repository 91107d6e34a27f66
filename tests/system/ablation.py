"""Trains, exports (int8) and evaluates one model a row of a table, and prints the table: docs/results.md is filled from it.

    python tests/system/ablation.py --trainer target/release/ckaad-train --table tests/system/ablation.toml \
        --data magtile=DIR --data br35h=DIR --out OUT [--jobs 2] [--only REGEX]

The table (TOML) has `[base]` with a training config and `[[row]]`s: `name`, `data` (names of --data), `seeds`, `set` (dotted keys that differ from
the base). A row that is done already is not run again. Frozen features are shared between rows that have the same ones.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value)


def config_text(base, changes, seed):
    tables = {"": {"seed": seed}}
    for key, value in (flat(base) | changes).items():
        table, _, name = key.rpartition(".")
        tables.setdefault(table, {})[name] = value
    parts = []
    for table, values in tables.items():
        parts += [f"[{table}]"] if table else []
        parts += [f"{name} = {toml(value)}" for name, value in values.items()]
    return "\n".join(parts) + "\n"


def flat(table, prefix=""):
    result = {}
    for key, value in table.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


# What frozen features depend on.
FEATURE_KEYS = ("backbone", "weights", "input.", "features.strides", "features.standardise", "features.flips", "anomalies.")


def feature_key(data, base, changes, seed):
    settings = flat(base) | changes
    mine = {k: v for k, v in settings.items() if k.startswith(FEATURE_KEYS)}
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{data}-{seed}-{json.dumps(mine, sort_keys=True)}")[:200]


def run(args, base, row, data, seed):
    folder = args.out / f"{data}-{row['name']}-{seed}".replace(" ", "_").replace("/", "_")
    result = folder / "evaluation.json"
    if not result.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        changes = row.get("set", {})
        (folder / "config.toml").write_text(config_text(base | {"name": data}, changes, seed))
        shared = args.out / "features" / feature_key(data, base, changes, seed)
        if shared.exists():
            shutil.copytree(shared, folder / "run" / "cache", copy_function=os.link)
        bundle = folder / "model.ckaad"
        steps = [
            ["fit", "--config", folder / "config.toml", "--data", args.data[data], "--out", folder / "run", "--device", "cpu"],
            ["export", "--run", folder / "run", "--out", bundle, "--precision", "int8"],
            ["evaluate", "--bundle", bundle, "--data", args.data[data], "--json", folder / "partial.json"],
        ]
        with open(folder / "log", "w") as log:
            for step in steps:
                subprocess.run([args.trainer, *step], check=True, stdout=log, stderr=log)
        cache = folder / "run" / "cache"
        if cache.exists() and not shared.exists():
            shutil.copytree(cache, shared, copy_function=os.link)
        shutil.rmtree(cache, ignore_errors=True)
        (folder / "partial.json").rename(result)
    evaluation = json.loads(result.read_text())
    print(f"done: {data} {row['name']} seed {seed}: {evaluation['image']['auroc']:.4f}", flush=True)
    return evaluation


def cell(values, places=3):
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{places}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{places}f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--table", required=True, type=pathlib.Path)
    parser.add_argument("--data", action="append", required=True, help="NAME=DIR")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    args.data = dict(pair.split("=", 1) for pair in args.data)
    table = tomllib.loads(args.table.read_text())
    jobs = [
        (row, data, seed)
        for row in table["row"]
        for data in row["data"]
        for seed in row.get("seeds", [1])
        if data in args.data and re.search(args.only, f"{data} {row['name']}")
    ]

    def guarded(job):
        try:
            return run(args, table["base"], *job)
        except subprocess.CalledProcessError as error:
            print(f"FAILED: {job[1]} {job[0]['name']} seed {job[2]}: {error}", flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(guarded, jobs))
    print("| data | row | seeds | image AUROC | AP | F1-max | AUPRO 0.3 | pixel AUROC | ms |\n|---|---|---|---|---|---|---|---|---|")
    for row in table["row"]:
        for data in row["data"]:
            found = [r for (x, d, _), r in zip(jobs, results) if x is row and d == data and r]
            if not found:
                continue
            image = lambda key: cell([r["image"][key] for r in found])
            pixel = lambda key: cell([r["pixel"][key] if r["pixel"] else None for r in found])
            ms = cell([r["median_ms"] for r in found], 1)
            print(f"| {data} | {row['name']} | {len(found)} | {image('auroc')} | {image('average_precision')} | {image('f1_max')} "
                  f"| {pixel('aupro_30')} | {pixel('auroc')} | {ms} |")


main()
