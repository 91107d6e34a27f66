"""Reference values for crates/train/src/metrics: writes crates/train/tests/fixtures/metrics/{images,pixels}.json.

Image and pixel AUROC, AP and F1-max come from scikit-learn. AUPRO comes from anomalib's own `compute_pro`, loaded without the rest
of anomalib. ADer's stepped metrics are computed by brute force, one threshold and one region after the other, from their
definitions (crates/train/src/metrics/grid.rs). The bootstrap interval is drawn again with numpy's generator, 20,000 times.

Run once by hand:
    python -m venv v
    v/bin/pip install -r tests/reference/requirements-fixtures.txt torch
    v/bin/pip install --no-deps anomalib torchmetrics lightning-utilities
    v/bin/python tests/reference/metrics.py
Made with scikit-learn 1.9.1, anomalib 2.7.0, torch 2.15.0, numpy 2.4.6.
"""

import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torchmetrics.utilities.compute import auc

FIXTURES = pathlib.Path(__file__).parents[2] / "crates/train/tests/fixtures" / "metrics"
EIGHT = np.ones((3, 3))


def anomalibs_aupro():
    """anomalib's AUPRO class; what it imports only to draw figures and to cut regions on a GPU is left empty."""
    folder = pathlib.Path(importlib.util.find_spec("anomalib").submodule_search_locations[0]) / "metrics"
    empty = {
        "matplotlib": [], "matplotlib.figure": ["Figure"], "anomalib": [], "anomalib.metrics": [],
        "anomalib.metrics.pro": ["connected_components_cpu", "connected_components_gpu"],
        "anomalib.metrics.base": ["AnomalibMetric"], "anomalib.metrics.utils": ["plot_metric_curve"],
    }
    for name, members in empty.items():
        module = types.ModuleType(name)
        module.__path__ = []
        for member in members:
            setattr(module, member, type(member, (), {}))
        sys.modules[name] = module
    spec = importlib.util.spec_from_file_location("anomalib.metrics.aupro", folder / "aupro.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module._AUPRO


AUPRO = anomalibs_aupro()


def aupro(maps, masks, limit):
    labels, first = np.zeros(masks.shape, np.int64), 0
    for index, mask in enumerate(masks):
        found, count = ndimage.label(mask, EIGHT)
        labels[index] = np.where(found > 0, found + first, 0)
        first += count
    rates, overlaps = AUPRO.compute_pro(
        types.SimpleNamespace(fpr_limit=torch.tensor(limit)), torch.from_numpy(labels), torch.from_numpy(maps)
    )
    return float(auc(rates.double(), overlaps.double(), reorder=True) / rates[-1].double()), first


def ranking(scores, labels):
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
        "f1_max": float(f1.max()),
    }


def stepped(maps, masks):
    low, high = float(maps.min()), float(maps.max())
    normalised = (maps.astype(np.float64) - low) / (high - low)
    rows = {}
    for step in range(101):
        found = normalised > step / 100
        hits, wrong = float((found & masks).sum()), float((found & ~masks).sum())
        missed = float((~found & masks).sum())
        precision = hits / (hits + wrong) if hits + wrong else 0.0
        recall = hits / (hits + missed)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        overlaps = []
        for image, mask in zip(found, masks):
            regions, count = ndimage.label(mask, EIGHT)
            overlaps += [image[regions == region].mean() for region in range(1, count + 1)]
        rows[step] = f1, recall, hits / (hits + wrong + missed), wrong / float((~masks).sum()), np.mean(overlaps)
    best = [rows[step] for step in range(0, 101, 5)]
    middle = [rows[step] for step in range(20, 81, 10)]
    # 100 thresholds from the lowest value up, the highest value left out.
    points = sorted((rate, overlap) for *_, rate, overlap in (rows[s] for s in range(100)) if rate < 0.3)
    x, y = np.array(points).T
    x = (x - x.min()) / (x.max() - x.min())
    return {
        "f1_max": max(row[0] for row in best),
        "iou_max": max(row[2] for row in best),
        "f1_mean": float(np.mean([row[0] for row in middle])),
        "acc_mean": float(np.mean([row[1] for row in middle])),
        "iou_mean": float(np.mean([row[2] for row in middle])),
        "aupro_30": float(np.trapezoid(y, x)),
    }


def draw_masks(rng, images, height, width):
    """Blobs, single pixels and diagonals; the first third of the images is normal."""
    masks = np.zeros((images, height, width), bool)
    for mask in masks[images // 3 :]:
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, height), rng.integers(0, width)
            size = rng.integers(1, 7)
            match rng.integers(0, 3):
                case 0:
                    mask[y : y + size, x : x + size] = True
                case 1:
                    mask[y, x] = True
                case 2:
                    for i in range(min(size, height - y, width - x)):
                        mask[y + i, x + i] = True
    return masks


def pixel_case(name, rng, quantum, shift, signal):
    masks = draw_masks(rng, 8, 24, 32)
    noise = rng.normal(size=masks.shape)
    raw = ndimage.gaussian_filter(noise + signal * masks, (0, 1, 1)) + shift
    if quantum:
        raw = np.round(raw / quantum) * quantum
    # Written with 7 digits, and read back as the test reads them, so that both see the same bits.
    written = [[float(f"{value:.7g}") for value in image.ravel()] for image in raw]
    maps = np.array(written).astype(np.float32).reshape(masks.shape)
    expected = ranking(maps.ravel(), masks.ravel())
    expected["aupro_30"], regions = aupro(maps, masks, 0.3)
    expected["aupro_05"], _ = aupro(maps, masks, 0.05)
    return {
        "name": name,
        "width": masks.shape[2],
        "maps": written,
        "masks": ["".join("#" if pixel else "." for pixel in mask.ravel()) for mask in masks],
        "regions": regions,
        "distinct": int(len(np.unique(maps))),
        "expected": expected,
        "ader": stepped(maps, masks),
    }


def interval(rng, scores, labels, resamples=20_000):
    normal, anomalous = scores[~labels], scores[labels]
    values = []
    for _ in range(resamples):
        n = np.sort(rng.choice(normal, len(normal)))
        a = rng.choice(anomalous, len(anomalous))
        below, ties = np.searchsorted(n, a, "left"), np.searchsorted(n, a, "right")
        values.append((below + ties).mean() / 2 / len(n))
    return [float(q) for q in np.quantile(values, [0.025, 0.975])]


def image_case(name, rng, images, quantum, views):
    labels = rng.random(images // views) < 0.4
    labels = np.repeat(labels, views)
    # Of a defective part, not every view shows the defect.
    labels &= rng.random(len(labels)) < 0.7
    scores = rng.normal(size=len(labels)) + 1.1 * labels
    scores = np.array([float(f"{value:.7g}") for value in np.round(scores / quantum) * quantum])
    parts = [f"part-{index // views}" for index in range(len(labels))]
    single = scores.astype(np.float32)
    best = {part: max(single[i] for i, p in enumerate(parts) if p == part) for part in parts}
    bad = {part: any(labels[i] for i, p in enumerate(parts) if p == part) for part in parts}
    return {
        "name": name,
        "scores": scores.tolist(),
        "anomalous": labels.tolist(),
        "parts": parts,
        "expected": ranking(single, labels),
        "by_part": ranking(np.array(list(best.values())), np.array(list(bad.values()))),
        "auroc_95": interval(rng, single, labels),
    }


def main():
    rng = np.random.default_rng(20240612)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    images = [
        image_case("many ties", rng, 120, 0.25, 2),
        image_case("few ties", rng, 300, 1e-6, 5),
    ]
    pixels = [
        pixel_case("many ties, both signs", rng, 1 / 16, 0.0, 2.0),
        pixel_case("hardly any ties, negative scores", rng, None, -7.0, 3.0),
        pixel_case("weak signal", rng, 1e-4, 1.0, 0.4),
    ]
    for name, cases in (("images", images), ("pixels", pixels)):
        (FIXTURES / f"{name}.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
        for case in cases:
            print(name, case["name"], case["expected"], case.get("ader"), case.get("auroc_95"), case.get("distinct"))


main()
