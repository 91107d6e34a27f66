"""CPU seconds of one training step: ckaad-train's (examples/train_step.rs) against PyTorch's, same net, same batch, one run.

    cargo build --release -p ckaad-train --example train_step
    python tests/reference/train_step_speed.py target/release/examples/train_step
"""

import subprocess
import sys
import time

import torch

import ckaad_step as reference

# The small net on EfficientNet-lite0's strides 8 and 16 at 224 pixels, one joint patch head of width 64: as examples/train_step.rs.
CHANNELS, SIDES, WIDTH = [40, 112], [28, 14], 64
NORMAL, ANOMALOUS, HARD = 16, 8, 0.05
WARM_UP, STEPS = 3, 20


def step(ae, d, optimisers, normal, anomalous):
    outputs = reference.auto_encoder(ae, [torch.cat(pair) for pair in zip(normal, anomalous)])
    detached = [g.detach() for g in outputs]
    energies = lambda x: reference.energies(d, x, True, WIDTH)
    loss = reference.discriminator_loss(energies(normal), energies(anomalous), energies(detached), [HARD])
    strength = 2 * torch.rand(NORMAL, 1, 1, 1)
    noisy = energies([x + 0.7 * strength * torch.randn_like(x) for x in normal])
    loss = loss + 0.5 * torch.relu(reference.MARGIN - noisy[0][0]).mean()
    if optimisers is None:
        reference.reconstruction(normal, [g[:NORMAL] for g in outputs], False)
        return
    optimisers[1].zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(d.values(), reference.CLIP)
    optimisers[1].step()
    loss = reference.reconstruction(normal, [g[:NORMAL] for g in outputs], False)
    loss = loss + reference.LAMBDA * energies(outputs)[0][0].mean()
    optimisers[0].zero_grad()
    loss.backward()
    optimisers[0].step()


def main():
    reference.WIDTHS, reference.BOTTLENECK, reference.CHANNELS = [32, 48], 96, CHANNELS
    batch = lambda n: [torch.randn(n, c, s, s) for c, s in zip(CHANNELS, SIDES)]
    normal, anomalous = batch(NORMAL), batch(ANOMALOUS)
    ae, d = reference.Parameters(), reference.Parameters()
    step(ae, d, None, normal, anomalous)
    optimisers = [torch.optim.Adam(list(p.values()), 2e-3, betas=(0.5, 0.999)) for p in (ae, d)]
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    for _ in range(WARM_UP):
        step(ae, d, optimisers, normal, anomalous)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(STEPS):
        step(ae, d, optimisers, normal, anomalous)
    theirs = [(time.process_time() - cpu) / STEPS, (time.perf_counter() - wall) / STEPS]
    print(f"PyTorch: {theirs[0]:.3f} CPU s, {theirs[1]:.3f} s a step")
    line = subprocess.run([sys.argv[1], str(STEPS)], check=True, capture_output=True, text=True).stdout
    ours = [float(v) for v in line.split()[:2]]
    print(f"ckaad-train: {ours[0]:.3f} CPU s, {ours[1]:.3f} s a step")
    print(f"ratio: {ours[0] / theirs[0]:.2f} in CPU time, {ours[1] / theirs[1]:.2f} in time")


main()
