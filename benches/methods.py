"""Every method on every set, through the bundle: the table of docs/results.md.

    python3 -m venv v && v/bin/pip install -r tests/reference/requirements.txt
    v/bin/python benches/methods.py --bin target/debug --out runs/table --set tiles=DIR@224x224 --set boards=DIR@320x320 [--method bank --method ckaad ...] [--speed]

A cell is one run of one method alone, `ckaad-train fit --method M` with the config that stands in its folder, `export` in int8 and `evaluate`; what is there already is not
made again, so that the table can grow over days. Printed is what is there: image AUROC in the folds with its standard error and on the test set, what alerted at the
threshold and the share of false alarms that the bundle states, pixel AUROC, AUPRO to 0.3, the mean F1 over thresholds 0.2 to 0.8 and the largest IoU by ADer's steps, GMAC. With --speed,
which wants an idle machine, also the agent's milliseconds with one and with two threads and their ratio to ONNX Runtime's on the same file.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tarfile

# A method that gives no map is held against the others beside the bank, whose map it then has.
METHODS = {
    "bank": ["bank"],
    "mahalanobis": ["bank", "mahalanobis"],
    "pooled": ["bank", "pooled"],
    "ckaad": ["ckaad"],
    "mil": ["mil"],
    "invad": ["invad"],
    "sparsity": ["sparsity"],
    "tocoad": ["tocoad"],
    "devnet": ["devnet"],
    "base": ["bank", "mahalanobis", "pooled"],
}


def config(width, height, epochs, extra):
    return f"""false_alarm_budget = 0.02
input.width = {width}
input.height = {height}
train.epochs = {epochs}
{extra}
"""


def made(cell, data, args, width, height, extra):
    """Fits, exports and evaluates what is not there; whether the cell is whole."""
    folder, methods = cell
    folder.mkdir(parents=True, exist_ok=True)
    text, run, bundle = folder / "config.toml", folder / "run", folder / "int8.ckaad"
    asked = f"# {','.join(methods)} on {data}\n" + config(width, height, args.epochs, extra)
    if text.exists() and text.read_text() != asked:
        print(f"{folder} was made otherwise, see its config.toml: give the same, or another --out", file=sys.stderr)
        return False
    text.write_text(asked)
    trainer = str(pathlib.Path(args.bin) / "ckaad-train")
    data = ["--data", data]
    fit = ["fit", "--config", text, "--method", ",".join(methods), *data, "--out", run, "--device", args.device]
    steps = [
        (folder / "fitted", [*fit, *(["--resume"] if (run / "run.json").exists() else [])]),
        (bundle, ["export", "--run", run, "--out", bundle]),
        (folder / "numbers.json", ["evaluate", "--bundle", bundle, *data, "--json", folder / "numbers.part", "--report", folder / "page.html"]),
    ]
    for result, command in steps:
        if result.exists():
            continue
        with open(folder / "log", "a") as log:
            code = subprocess.run([trainer, *map(str, command)], stdout=log, stderr=log).returncode
        if code != 0:
            print(f"{folder}: {command[0]} ended with {code}, see {folder}/log", file=sys.stderr)
            return False
        if command[0] == "fit":
            result.touch()
        elif command[0] == "evaluate":
            # Only a whole one has the name: what was stopped on the way is made again.
            (folder / "numbers.part").rename(result)
    return True


def row(folder, args):
    numbers = json.loads((folder / "numbers.json").read_text())
    pixel = numbers["pixel"] or {}
    ader = pixel.get("ader") or {}
    with tarfile.open(folder / "int8.ckaad") as tar:
        report, manifest = (json.load(tar.extractfile(name)) for name in ("report.json", "manifest.json"))
    evidence, counts = report["evidence"], numbers["at_threshold"]
    low, high = (100 * rate for rate in manifest["calibration"]["interval"])
    cells = [
        f"{evidence['image_auroc']:.4f} ± {evidence['standard_error']:.4f}",
        f"{numbers['image']['auroc']:.4f}",
        f"{counts['hits']} of {numbers['anomalous_images']}",
        f"{counts['false_alarms']} of {numbers['normal_images']}; {low:.1f} to {high:.1f} %",
    ]
    values = [pixel.get("auroc"), pixel.get("aupro_30"), ader.get("f1_mean"), ader.get("iou_max")]
    cells += ["-" if value is None else f"{value:.3f}" for value in values]
    cells.append(f"{report['gmac']:.3f}")
    if args.speed:
        from compare_onnxruntime import compare

        for threads in (1, 2):
            mine, other = compare(str(pathlib.Path(args.bin) / "ckaad-agent"), folder / "int8.ckaad", threads, 5, 20, False)
            cells.append(f"{mine:.1f}; {mine / other:.2f}")
    return cells


def data_set(text):
    found = re.fullmatch(r"([a-z0-9-]+)=(.+)@(\d+)x(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=DIR@WIDTHxHEIGHT, the name of a-z, 0-9 and -")
    name, data, width, height = found.groups()
    return name, data, int(width), int(height)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True, help="folder with ckaad-train and ckaad-agent")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--set", action="append", required=True, type=data_set, metavar="NAME=DIR@WxH")
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--extra", default="", help="more lines of the config, of the form features.flips = 'both'")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--only-print", action="store_true", help="make nothing")
    args = parser.parse_args()
    head = ["set", "method", "folds: image AUROC", "test: image AUROC", "alerted", "false alarms; stated interval", "pixel AUROC", "AUPRO 0.3"]
    head += ["mF1 .2-.8", "IoU-max", "GMAC"]
    head += ["ms; to ONNX Runtime, one thread", "two threads"] * args.speed
    rows = []
    for name, data, width, height in args.set:
        for method in args.method or METHODS:
            folder = args.out / name / method
            if args.only_print and not (folder / "numbers.json").exists():
                continue
            if args.only_print or made((folder, METHODS[method]), data, args, width, height, args.extra):
                rows.append([name, method, *row(folder, args)])
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
