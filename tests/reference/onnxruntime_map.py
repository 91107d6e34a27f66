"""Runs a bundle's model.onnx in ONNX Runtime, for tests/it/parity.rs.

    python3 -m venv v && v/bin/pip install -r tests/reference/requirements.txt
    v/bin/python tests/reference/onnxruntime_map.py MODEL.onnx IMAGE.rgb MAP.f32

IMAGE.rgb holds the bytes of u8 [1,H,W,3]; MAP.f32 receives the output's values, little endian.
"""

import sys

import numpy as np
import onnxruntime

model, image, output = sys.argv[1:4]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
shape = session.get_inputs()[0].shape
pixels = np.fromfile(image, dtype=np.uint8).reshape(shape)
(result,) = session.run(["anomaly_map"], {"image": pixels})
result.astype("<f4").tofile(output)
