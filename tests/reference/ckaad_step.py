"""One optimiser step of CKAAD in PyTorch: writes crates/train/tests/fixtures/train/ckaad_step.json.

The networks are those of crates/train/src/methods/ckaad/{net,discriminator}.rs, the losses are written anew from the paper's equations. Both
sides fill every parameter and every input from the same formula (`fill`), so no weights have to be carried over. Two cases: the
paper's (a patch head a scale and the image discriminator, flattened cosine) and ours (one joint patch head, its hardest quarter,
cosine of positions).

Run once by hand, with torch installed:
    python tests/reference/ckaad_step.py
Made with torch 2.15.0.
"""

import json
import pathlib

import torch
import torch.nn.functional as F

FIXTURE = pathlib.Path(__file__).parents[2] / "crates/train/tests/fixtures" / "train" / "ckaad_step.json"
CHANNELS, SIDES = [6, 8], [16, 8]
WIDTHS, BOTTLENECK = [4, 6], 8
GAMMA, MARGIN, LAMBDA, CLIP = 0.5, 5.0, 0.02, 1.0
RATE_AUTO_ENCODER, RATE_DISCRIMINATOR = 5e-3, 1e-2


def fill(name, shape, offset=0.0, scale=0.3):
    """offset + scale * sin(0.7 i + phase), i counting row by row; the phase comes from the name."""
    count = int(torch.tensor(shape).prod())
    phase = sum(name.encode()) % 97
    return (offset + scale * torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + phase)).float().reshape(shape)


class Parameters(dict):
    def tensor(self, name, shape, offset=0.0, scale=0.3):
        if name not in self:
            self[name] = fill(name, shape, offset, scale).requires_grad_()
        return self[name]


def conv_norm(p, name, x, out, kernel, stride):
    x = F.conv2d(x, p.tensor(f"{name}.conv.weight", (out, x.shape[1], kernel, kernel)), None, stride, kernel // 2)
    gamma, beta = p.tensor(f"{name}.batch.gamma", (out,), 1.0), p.tensor(f"{name}.batch.beta", (out,))
    return F.batch_norm(x, None, None, gamma, beta, True, 0.1, 1e-5)


def block(p, name, x, out, up):
    stride = 1 if up else 2
    shortcut = conv_norm(p, f"{name}.shortcut", x, out, 1, stride)
    x = F.relu(conv_norm(p, f"{name}.first", x, out, 3, stride))
    if up:
        x, shortcut = (F.interpolate(t, scale_factor=2, mode="nearest") for t in (x, shortcut))
    return F.relu(conv_norm(p, f"{name}.second", x, out, 3, 1) + shortcut)


def auto_encoder(p, features):
    reduced = [
        F.relu(conv_norm(p, "reduce.0.0", features[0], WIDTHS[1], 3, 2)),
        F.relu(conv_norm(p, "reduce.1.0", features[1], WIDTHS[1], 1, 1)),
    ]
    x = block(p, "fuse.0", torch.cat(reduced, 1), BOTTLENECK, False)
    outputs = []
    for i, scale in enumerate((1, 0)):
        x = block(p, f"stages.{i}.0", x, WIDTHS[scale], True)
        weight = p.tensor(f"heads.{i}.weight", (CHANNELS[scale], WIDTHS[scale], 1, 1))
        outputs.append(F.conv2d(x, weight, p.tensor(f"heads.{i}.bias", (CHANNELS[scale],))))
    return outputs[::-1]


def patch_head(p, name, x, width=None):
    c = width or x.shape[1]
    for i, out in enumerate((c, c, 1)):
        if i > 0:
            x = F.leaky_relu(x, 0.1)
        x = F.conv2d(x, p.tensor(f"{name}.convs.{i}.weight", (out, x.shape[1], 1, 1)))
    return x.abs()


def unit(x):
    return x / (x.square().sum(1, keepdim=True) + 1e-12).sqrt()


def shrink(p, name, x):
    x = F.conv2d(x, p.tensor(f"{name}.conv.weight", (64, x.shape[1], 3, 3), 0.0, 0.05), None, 2, 1)
    gamma, beta = p.tensor(f"{name}.norm.gamma", (64,), 1.0), p.tensor(f"{name}.norm.beta", (64,))
    return F.leaky_relu(F.instance_norm(x, None, None, gamma, beta, True, 0.1, 1e-5), 0.1)


def linear(p, name, x, out):
    # burn keeps a linear layer's weight as [in, out].
    weight = p.tensor(f"{name}.weight", (x.shape[1], out), 0.0, 0.1)
    return x @ weight + p.tensor(f"{name}.bias", (out,))


def energies(p, features, joint, width=None):
    """Groups of energies: patch heads, and for the paper's case whole images."""
    if joint:
        coarse = F.interpolate(features[1], size=features[0].shape[2:], mode="bilinear", align_corners=False)
        return [[patch_head(p, "patch.heads.0", torch.cat([unit(features[0]), unit(coarse)], 1), width)]]
    patch = [patch_head(p, f"patch.heads.{i}", unit(x)) for i, x in enumerate(features)]
    fine = shrink(p, "image.scales.0.1", shrink(p, "image.scales.0.0", features[0]))
    coarse = shrink(p, "image.scales.1.0", features[1])
    x = shrink(p, "image.joint", torch.cat([fine, coarse], 1)).mean((2, 3))
    x = F.leaky_relu(linear(p, "image.hidden", x, 64), 0.1)
    return [patch, [linear(p, "image.energy", x, 1).abs()[:, :, None, None]]]


def hardest(e, share):
    e = e.flatten(1)
    count = int(e.shape[1] * share)
    return e if count >= e.shape[1] else e.topk(max(1, count), 1)[0]


def discriminator_loss(normal, anomalous, reconstructed, shares):
    total = 0.0
    for heads_n, heads_a, heads_g, share in zip(normal, anomalous, reconstructed, shares):
        for n, a, g in zip(heads_n, heads_a, heads_g):
            loss = n.mean() + GAMMA * F.relu(MARGIN - g).mean()
            if share < 1:
                loss = loss + hardest(n, share).mean()
            loss = loss + (1 - GAMMA) * F.relu(MARGIN - hardest(a, share)).mean()
            total = total + loss / len(heads_n)
    return total


def reconstruction(features, outputs, flattened):
    total = 0.0
    for f, g in zip(features, outputs):
        if flattened:
            cosine = F.cosine_similarity(f.flatten(1), g.flatten(1), 1, 1e-12)
        else:
            cosine = F.cosine_similarity(f, g, 1, 1e-12)
        total = total + (1 - cosine).mean()
    return total


def adam(parameters, rate):
    """The first step of Adam."""
    for value in parameters.values():
        g = value.grad
        m, v = 0.5 * g / 0.5, 0.001 * g * g / 0.001
        value.data -= rate * m / (v.sqrt() + 1e-8)


def case(joint):
    normal = [fill(f"normal.{i}", (3, c, s, s), 0.2, 1.0) for i, (c, s) in enumerate(zip(CHANNELS, SIDES))]
    anomalous = [fill(f"anomalous.{i}", (2, c, s, s), -0.3, 1.5) for i, (c, s) in enumerate(zip(CHANNELS, SIDES))]
    shares = [0.25] if joint else [1.0, 1.0]
    ae, d = Parameters(), Parameters()
    outputs = auto_encoder(ae, [torch.cat(pair) for pair in zip(normal, anomalous)])
    detached = [g.detach() for g in outputs]
    loss = discriminator_loss(*(energies(d, x, joint) for x in (normal, anomalous, detached)), shares)
    result = {"discriminator": loss.item()}
    loss.backward()
    torch.nn.utils.clip_grad_norm_(d.values(), CLIP)
    adam(d, RATE_DISCRIMINATOR)
    for value in d.values():
        value.grad = None
    loss = reconstruction(normal, [g[:3] for g in outputs], not joint)
    result["reconstruction"] = loss.item()
    adversarial = sum(sum(e.mean() for e in heads) / len(heads) for heads in energies(d, outputs, joint))
    result["adversarial"] = adversarial.item()
    (loss + LAMBDA * adversarial).backward()
    adam(ae, RATE_AUTO_ENCODER)
    sample = lambda p: {name: [float(v) for v in value.detach().flatten()[:4]] for name, value in p.items()}
    return result | {"auto_encoder": sample(ae), "discriminators": sample(d)}


if __name__ == "__main__":
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(json.dumps({"paper": case(False), "joint": case(True)}, indent=1) + "\n")
