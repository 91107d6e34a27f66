"""Masks of COCO's outlines by others: OpenCV fills polygons as the makers of COCO-AD did, pycocotools unpacks runs.

    python3 -m venv v && v/bin/pip install -r tests/reference/requirements-fixtures.txt
    v/bin/python tests/reference/coco_masks.py fixture > crates/train/tests/fixtures/coco/masks.json
    v/bin/python tests/reference/coco_masks.py masks DIR PART SPLIT OUT

The first writes drawn outlines and, packed by pycocotools, the mask of each. The second writes OUT/NAME.png of every anomalous image of DIR's PART
(train2017 or val2017) in a split (0 to 3), which CKAAD_COCO's test compares with the trainer's.
"""
import json
import pathlib
import sys

import cv2
import numpy as np
from pycocotools import mask as packed

SPLITS = [(1, 21), (22, 44), (46, 65), (67, 90)]


def drawn(segmentation, height, width):
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), np.uint8)
        for part in segmentation:
            # Cut off to whole pixels; each polygon on its own, so that between them all crossings count.
            cv2.fillPoly(mask, [np.array(part).reshape(-1, 2).astype(np.int32)], 255)
        return mask
    if isinstance(segmentation["counts"], list):
        segmentation = packed.frPyObjects(segmentation, height, width)
    return packed.decode(segmentation) * np.uint8(255)


def pack(mask):
    runs = packed.encode(np.asfortranarray(mask > 0, np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()}


def plain(mask):
    column, runs, last = np.asfortranarray(mask > 0).ravel(order="F"), [], 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], column.astype(np.int8), [0 if not column[-1] else 1]])))
    for edge in list(edges) + [len(column)]:
        runs.append(int(edge - last))
        last = edge
    return {"size": list(mask.shape), "counts": runs}


def fixture():
    rng = np.random.default_rng(7)
    cases = []
    for i in range(120):
        height, width = (int(side) for side in rng.integers(5, 70, 2))
        if i % 3 == 2:
            mask = (rng.random((height, width)) < rng.random()).astype(np.uint8) * 255
            mask = cv2.blur(mask, (3, 3)) // 128 * 255 if i % 2 else mask
            segmentation = pack(mask) if i % 4 else plain(mask)
        else:
            # Some cross themselves, some leave the image, some have no area.
            corners = [int(n) for n in rng.integers(3, 9, rng.integers(1, 4))]
            segmentation = [
                np.round(rng.uniform(-4, [width + 4, height + 4], (n, 2)), 2).ravel().tolist() for n in corners
            ]
            if i % 5 == 0:
                segmentation.append([3.5, 2.25, 3.75, 2.5, 3.0, 2.0])
        cases.append({"width": width, "height": height, "segmentation": segmentation, "mask": pack(drawn(segmentation, height, width))})
    json.dump(cases, sys.stdout)


def masks(folder, part, split, out):
    listed = json.loads((pathlib.Path(folder) / f"annotations/instances_{part}.json").read_text())
    low, high = SPLITS[int(split)]
    images = {image["id"]: image for image in listed["images"]}
    found = {}
    for object in listed["annotations"]:
        image = images[object["image_id"]]
        if low <= object["category_id"] <= high:
            mask = drawn(object["segmentation"], image["height"], image["width"])
            found[image["file_name"]] = np.maximum(found.get(image["file_name"], mask), mask)
    for name, mask in found.items():
        cv2.imwrite(str(pathlib.Path(out) / (pathlib.Path(name).stem + ".png")), mask)


if sys.argv[1] == "fixture":
    fixture()
else:
    masks(*sys.argv[2:])
