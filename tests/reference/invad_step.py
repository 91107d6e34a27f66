"""One optimiser step of InvAD in PyTorch: writes crates/train/tests/fixtures/train/invad_step.json.

The network is that of crates/train/src/methods/invad/, written anew from the paper. Both sides fill every parameter and every input from
the same formula (`fill` of ckaad_step.py), so no weights have to be carried over. Two cases: the paper's norm over a whole image
("layer") and ours ("batch"). Everything is computed in double precision from parameters in single precision.

Run once by hand, with torch installed:
    python tests/reference/invad_step.py
Two more commands write nothing. `sizes` prints the multiply-adds and the parameters of the published networks, `check` compares
upsampling by a transposed convolution and a blur with the forms that need neither:
    python tests/reference/invad_step.py sizes
    python tests/reference/invad_step.py check
Made with torch 2.15.0.
"""

import collections
import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F

import ckaad_step as reference
from ckaad_step import fill

FIXTURE = pathlib.Path(__file__).parents[2] / "crates/train/tests/fixtures" / "train" / "invad_step.json"
Sizes = collections.namedtuple("Sizes", "channels sides style latent blocks")
SMALL = Sizes(channels=[6, 8, 10], sides=[16, 8, 4], style=4, latent=3, blocks=2)
PUBLISHED = {
    "lite": Sizes([64, 128, 256], [64, 32, 16], 64, 16, 4),
    "large": Sizes([256, 512, 1024], [64, 32, 16], 64, 16, 2),
}
BATCH, LOSS_WEIGHT, CLIP, RATE = 3, 5.0, 5.0, 4e-3
# Adam's first step here is the sign of the gradient. Where the gradient is this small, rounding may choose the sign.
SMALLEST_GRADIENT = 1e-6
# The blur along one axis, [1, 3, 3, 1] / 8, times 2: stride 2 leaves every second place empty.
BLUR = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4


class Parameters(reference.Parameters):
    """Also counts the multiply-adds: `macs` by "conv", "transposed", "blur" and "norm"."""

    def __init__(self):
        self.macs = collections.Counter()

    def tensor(self, name, shape, offset=0.0, scale=0.3):
        return super().tensor(name, shape, offset, scale).double()

    def count(self):
        return sum(value.numel() for value in self.values())


class Shapes(Parameters):
    """Parameters without values, for counting at the published sizes."""

    def tensor(self, name, shape, offset=0.0, scale=0.3):
        if name not in self:
            self[name] = torch.empty(shape, dtype=torch.float64, device="meta")
        return self[name]


def places(x):
    return x.shape[0] * x.shape[2] * x.shape[3]


def blur(p, x, padding):
    n, c, h, w = x.shape
    kernel = torch.outer(BLUR, BLUR).to(x.device)[None, None]
    # Every channel by itself.
    y = F.conv2d(x.reshape(n * c, 1, h, w), kernel, padding=padding)
    p.macs["blur"] += places(y) * 16
    return y.reshape(n, c, *y.shape[2:])


def upsample(p, x, weight):
    """A transposed convolution of stride 2 and a blur: twice the side. The weight is [out, in, k, k] and is not flipped."""
    # Counted where it reads: every input place is multiplied with the whole kernel.
    p.macs["transposed"] += places(x) * weight.numel()
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return blur(p, y, {3: 1, 1: 2}[weight.shape[2]])


def conv(p, x, weight, stride=1, padding=0):
    y = F.conv2d(x, weight, None, stride, padding)
    p.macs["conv"] += places(y) * weight.numel()
    return y


def equalised(p, name, x, out, kernel, up=False):
    """A convolution without bias whose weights are about N(0, 1) and scaled as they are used."""
    weight = p.tensor(f"{name}.weight", (out, x.shape[1], kernel, kernel), 0.0, 0.3) / math.sqrt(x.shape[1] * kernel**2)
    return upsample(p, x, weight) if up else conv(p, x, weight, 1, kernel // 2)


def add_bias(p, name, x, offset=0.0):
    return x + p.tensor(f"{name}.bias", (x.shape[1],), offset)[:, None, None]


def conv_lrelu(p, name, x, out, up=False):
    x = add_bias(p, name, equalised(p, name, x, out, 3, up))
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def conv_norm(p, name, x, out, kernel, stride, eps):
    x = conv(p, x, p.tensor(f"{name}.conv.weight", (out, x.shape[1], kernel, kernel)), stride, kernel // 2 if stride == 1 else 0)
    gamma, beta = p.tensor(f"{name}.norm.gamma", (out,), 1.0), p.tensor(f"{name}.norm.beta", (out,))
    p.macs["norm"] += 2 * x.numel()
    return F.batch_norm(x, None, None, gamma, beta, True, 0.1, eps)


def bottleneck(p, name, x):
    y, out = x, x.shape[1]
    for i, (width, kernel) in enumerate([(out // 4, 1), (out // 4, 3), (out, 1)]):
        y = conv_norm(p, f"{name}.{i}", y, width, kernel, 1, 1e-5)
        y = F.relu(y) if i < 2 else y
    return F.relu(x + y)


def fuser(p, sizes, features):
    """The style maps, deepest first."""
    strides = [side // sizes.sides[-1] for side in sizes.sides]
    reduced = [conv_norm(p, f"fuser.reduce.{i}", x, x.shape[1], k, k, 1e-6) for i, (x, k) in enumerate(zip(features, strides))]
    x = F.relu(conv_norm(p, "fuser.join", torch.cat(reduced, 1), sizes.style, 1, 1, 1e-6))
    x = bottleneck(p, "fuser.bottleneck", x)
    styles = []
    for j in range(len(features)):
        x = conv_lrelu(p, f"fuser.steps.{j}.0", x, sizes.style, up=j > 0)
        x = conv_lrelu(p, f"fuser.steps.{j}.1", x, sizes.style)
        styles.append(x)
    return styles


def normalise(p, x, norm):
    # What counters of operations take for mean, variance, difference and quotient.
    p.macs["norm"] += 4 * x.numel()
    if norm == "layer":
        return F.layer_norm(x, x.shape[1:], eps=1e-5)
    return F.batch_norm(x, None, None, None, None, True, 0.1, 1e-5)


def modulate(p, name, x, latent):
    part = lambda which, offset: add_bias(p, f"{name}.{which}", equalised(p, f"{name}.{which}", latent, x.shape[1], 3), offset)
    return x * part("gamma", 1.0) + part("beta", 0.0)


def block(p, name, x, out, latent, up, norm):
    shortcut = equalised(p, f"{name}.shortcut", x, out, 1, up)
    x = normalise(p, x, norm)
    # The latent has the side that an upsampling convolution only makes.
    x = x if up else modulate(p, f"{name}.first", x, latent)
    x = conv_lrelu(p, f"{name}.first.conv", x, out, up)
    x = modulate(p, f"{name}.second", normalise(p, x, norm), latent)
    x = conv_lrelu(p, f"{name}.second.conv", x, out)
    return (x + shortcut) / math.sqrt(2)


def decoder(p, sizes, styles, norm):
    """The predicted features, finest first."""
    deepest, side = sizes.channels[-1], sizes.sides[-1]
    start = p.tensor("decoder.start", (1, deepest, side, side), 0.0, 0.3)
    x = conv_lrelu(p, "decoder.first", start.expand(styles[0].shape[0], -1, -1, -1), deepest)
    predictions = []
    for j, (style, out) in enumerate(zip(styles, sizes.channels[::-1])):
        name = f"decoder.stages.{j}"
        latent = conv_lrelu(p, f"{name}.latent.0", style, sizes.style)
        latent = conv_lrelu(p, f"{name}.latent.1", latent, sizes.latent)
        for k in range(sizes.blocks):
            x = block(p, f"{name}.blocks.{k}", x, out, latent, j > 0 and k == 0, norm)
        predictions.append(x)
    return predictions[::-1]


def joint_map(features, predictions):
    """1 - cosine of all scales' channels at once, at the finest scale's side: [N, H, W]."""
    side = features[0].shape[2:]
    resized = lambda x: F.interpolate(reference.unit(x), size=side, mode="bilinear", align_corners=False)
    # The coarse scales' vectors are a little shorter than 1 after the interpolation.
    a, b = (torch.cat([resized(x) for x in maps], 1) for maps in (features, predictions))
    dot = lambda x, y: (x * y).sum(1)
    return 1 - dot(a, b) / (dot(a, a) * dot(b, b) + 1e-12).sqrt()


def adam(p):
    """The first step of Adam with betas (0, 0.99)."""
    for value in p.values():
        g = value.grad
        m, v = g, 0.01 * g * g / 0.01
        value.data -= RATE * m / (v.sqrt() + 1e-8)


def first(x, count):
    return [float(v) for v in x.detach().flatten()[:count]]


def case(norm):
    shapes = enumerate(zip(SMALL.channels, SMALL.sides))
    features = [fill(f"normal.{i}", (BATCH, c, s, s), 0.2, 1.0).double() for i, (c, s) in shapes]
    p = Parameters()
    predictions = decoder(p, SMALL, fuser(p, SMALL, features), norm)
    loss = LOSS_WEIGHT * sum(F.mse_loss(g, f) for g, f in zip(predictions, features))
    result = {
        "loss": loss.item(),
        "predictions": [first(g, 8) for g in predictions],
        "joint_map": first(joint_map(features, predictions), 8),
    }
    loss.backward()
    length = torch.nn.utils.clip_grad_norm_(p.values(), CLIP)
    print(f"{norm}: loss {loss.item():.6f}, gradient norm {length.item():.6f} before clipping, {p.count()} parameters")
    skipped = [name for name, value in p.items() if min(map(abs, first(value.grad, 4))) < SMALLEST_GRADIENT]
    adam(p)
    sampled = {name: first(value, 4) for name, value in p.items() if name not in skipped}
    return result | {"parameters": sampled, "skipped": skipped}, p.count()


def write_fixture():
    (layer, count), (batch, _) = case("layer"), case("batch")
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(json.dumps({"layer": layer, "batch": batch, "parameter_count": count}, indent=1) + "\n")


def print_sizes():
    for name, sizes in PUBLISHED.items():
        features = [torch.empty((1, c, s, s), dtype=torch.float64, device="meta") for c, s in zip(sizes.channels, sizes.sides)]
        parts = {"fuser": Shapes(), "decoder": Shapes()}
        styles = fuser(parts["fuser"], sizes, features)
        decoder(parts["decoder"], sizes, styles, "layer")
        for part, p in parts.items():
            # The published numbers leave out the blur, which runs as an operation of its own.
            counted = p.macs["conv"] + p.macs["transposed"] + p.macs["norm"]
            print(f"{name} {part}: {counted / 1e9:.3f} GMAC ({counted}), {p.count() / 1e6:.3f} M parameters ({p.count()})")
            print("    " + ", ".join(f"{kind} {p.macs[kind]}" for kind in ("conv", "transposed", "norm", "blur")))


def axis_matrix():
    """[3, 2, 3]: how much of the transposed kernel's tap t is in tap d of the convolution that gives the places of parity a.

    K[j] = sum over k of BLUR[k] w[j + k - 1]; tap d = 0, 1, 2 reads x[q - 1], x[q], x[q + 1] and is K[a + 2 - 2 d].
    """
    matrix = torch.zeros(3, 2, 3, dtype=torch.float64)
    for parity in range(2):
        for tap in range(3):
            for k in range(4):
                t = parity + 2 - 2 * tap + k - 1
                if 0 <= t < 3:
                    matrix[t, parity, tap] += BLUR[k]
    return matrix


def parity_matrix():
    """[9, 36]: row 3 ky + kx, column 9 (2 py + px) + 3 dy + dx."""
    axis = axis_matrix()
    return torch.einsum("ypd,xqe->yxpqde", axis, axis).reshape(9, 36)


def check():
    torch.manual_seed(0)
    # Odd and unequal sides, and as few as one place, so that every border is seen.
    for height, width in [(5, 7), (1, 1), (2, 1), (16, 16)]:
        x = torch.randn(2, 4, height, width, dtype=torch.float64)
        weight = torch.randn(3, 4, 3, 3, dtype=torch.float64)
        expected = upsample(Parameters(), x, weight)
        kernels = (weight.reshape(12, 9) @ parity_matrix()).reshape(3, 4, 4, 3, 3)
        # The channel 4 o + 2 py + px is the output channel o at the places (2 y + py, 2 x + px).
        kernels = kernels.transpose(1, 2).reshape(12, 4, 3, 3)
        found = F.pixel_shuffle(F.conv2d(x, kernels, padding=1), 2)
        same("3x3", found, expected)

        weight = torch.randn(3, 4, 1, 1, dtype=torch.float64)
        expected = upsample(Parameters(), x, weight)
        # A border of zeros in place of the border's own values, cut off again after the interpolation.
        y = F.pad(F.conv2d(x, weight), (1, 1, 1, 1))
        found = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)[:, :, 2:-2, 2:-2]
        same("1x1", found, expected)


def same(what, found, expected):
    assert found.shape == expected.shape
    error = (found - expected).abs().max().item()
    print(f"{what} to {tuple(found.shape[2:])}: differs by at most {error:.1e}")
    assert error < 1e-12


if __name__ == "__main__":
    {"sizes": print_sizes, "check": check}[sys.argv[1]]() if len(sys.argv) > 1 else write_fixture()
