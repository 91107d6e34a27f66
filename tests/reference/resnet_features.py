"""Features of torchvision's ResNets: writes crates/train/tests/fixtures/backbone/resnets.json.

The blocks are written anew with torch's own layers, after He et al. 2016 (v1.5: a bottleneck's stride is in its 3x3
convolution). Both sides fill every tensor of the state dict from the same formula, so no weights have to be carried over; with
`--weights FILE` (safetensors, batch norms folded) a real ResNet18 is measured instead, for the test that CKAAD_RESNET18 switches on.

    python tests/reference/resnet_features.py [--weights FILE --out FILE]
Made with torch 2.15.0.
"""

import argparse
import json
import pathlib

import torch
import torch.nn.functional as F

FIXTURE = pathlib.Path(__file__).parents[2] / "crates/train/tests/fixtures" / "backbone" / "resnets.json"
NETS = {"resnet18": ([2, 2, 2], None), "resnet50": ([3, 4, 6], 64), "wide-resnet50-2": ([3, 4, 6], 128)}
SIDE = 64


def fill(name, shape):
    """sin(0.7 i + phase), scaled so that activations neither vanish nor explode; batch norms near the identity."""
    count = int(torch.tensor(shape).prod())
    wave = torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + sum(name.encode()) % 97)
    if len(shape) == 4:
        return (wave * (2.0 / (shape[1] * shape[2] * shape[3])) ** 0.5 * 0.6).float().reshape(shape)
    offset = 1.0 if name.endswith(("running_var", "weight")) else 0.0
    return (offset + 0.2 * wave).float().reshape(shape)


class Net:
    def __init__(self, weights):
        self.weights = weights

    def get(self, name, shape):
        if self.weights is None:
            return fill(name, shape)
        return self.weights[name].reshape(shape)

    def conv(self, x, conv, norm, out, kernel, stride):
        shape = (out, x.shape[1], kernel, kernel)
        if self.weights is not None:
            folded = conv.removesuffix(".0") if ".downsample" in conv else conv
            return F.conv2d(x, self.get(f"{folded}.weight", shape), self.get(f"{folded}.bias", (out,)), stride, kernel // 2)
        weight = self.get(f"{conv}.weight", shape)
        x = F.conv2d(x, weight, None, stride, kernel // 2)
        part = lambda what: self.get(f"{norm}.{what}", (out,))
        return F.batch_norm(x, part("running_mean"), part("running_var"), part("weight"), part("bias"), False, 0.0, 1e-5)

    def block(self, x, name, out, inner, stride):
        shortcut = x
        if stride > 1 or x.shape[1] != out:
            shortcut = self.conv(x, f"{name}.downsample.0", f"{name}.downsample.1", out, 1, stride)
        if inner is None:
            y = F.relu(self.conv(x, f"{name}.conv1", f"{name}.bn1", out, 3, stride))
            return F.relu(self.conv(y, f"{name}.conv2", f"{name}.bn2", out, 3, 1) + shortcut)
        y = F.relu(self.conv(x, f"{name}.conv1", f"{name}.bn1", inner, 1, 1))
        y = F.relu(self.conv(y, f"{name}.conv2", f"{name}.bn2", inner, 3, stride))
        return F.relu(self.conv(y, f"{name}.conv3", f"{name}.bn3", out, 1, 1) + shortcut)

    def features(self, image, blocks, inner):
        mean, deviation = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        x = (image / 255 - mean) / deviation
        x = F.max_pool2d(F.relu(self.conv(x, "conv1", "bn1", 64, 7, 2)), 3, 2, 1)
        taps = []
        for layer, count in enumerate(blocks):
            out = (64 << layer) * (1 if inner is None else 4)
            for i in range(count):
                stride = 2 if layer > 0 and i == 0 else 1
                x = self.block(x, f"layer{layer + 1}.{i}", out, inner and inner << layer, stride)
            taps.append(x)
        return taps


def image(side):
    """(7x + 13y + 31c + x*y) mod 256"""
    x, y, c = torch.arange(side), torch.arange(side), torch.arange(3)
    value = 7 * x[None, None, :] + 13 * y[None, :, None] + 31 * c[:, None, None] + (x[None, None, :] * y[None, :, None])
    return (value % 256).float()[None]


def describe(taps):
    """Every 97th value, and the mean, of each tap."""
    return [
        {"shape": list(t.shape[1:]), "mean": float(t.double().mean()), "every_97th": [float(v) for v in t.flatten()[::97][:64]]}
        for t in taps
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights")
    parser.add_argument("--out", type=pathlib.Path, default=FIXTURE)
    args = parser.parse_args()
    with torch.no_grad():
        if args.weights:
            from safetensors.torch import load_file

            nets = {"resnet18": describe(Net(load_file(args.weights)).features(image(224), [2, 2, 2], None))}
        else:
            nets = {name: describe(Net(None).features(image(SIDE), *net)) for name, net in NETS.items()}
    args.out.write_text(json.dumps(nets, indent=None) + "\n")


main()
