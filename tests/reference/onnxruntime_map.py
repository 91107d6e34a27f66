"""Runs a bundle's model.onnx in ONNX Runtime, for tests/it/parity.rs.

    python3 -m venv v && v/bin/pip install -r tests/reference/requirements.txt
    v/bin/python tests/reference/onnxruntime_map.py MODEL.onnx IMAGE.rgb MAP.f32 [SCORE.f32]

IMAGE.rgb holds the bytes of u8 [V,H,W,3]; MAP.f32 receives the values of the V maps, SCORE.f32 the V image scores where the
model has them, little endian.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

model, image, output, *score = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
# On x86 without VNNI, ONNX Runtime saturates the sum of two products of bytes, and answers otherwise than on every other CPU, unless it is told not to.
if "vnni" not in Path("/proc/cpuinfo").read_text():
    options.add_session_config_entry("session.x64quantprecision", "1")
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
shape = session.get_inputs()[0].shape
pixels = np.fromfile(image, dtype=np.uint8).reshape(shape)
names = [output.name for output in session.get_outputs()]
results = dict(zip(names, session.run(names, {"image": pixels})))
results["anomaly_map"].astype("<f4").tofile(output)
if score and "image_score" in results:
    results["image_score"].astype("<f4").tofile(score[0])
