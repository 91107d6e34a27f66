"""Small quantised models, each for one operator of the int8 engine, and ONNX Runtime's answers, for tests/it/qlinearconv.rs.

    python3 -m venv v && v/bin/pip install -r tests/reference/requirements.txt
    v/bin/python tests/reference/qlinearconv.py FOLDER

FOLDER receives NAME.onnx (image u8 [1,H,W,3] -> anomaly_map f32 [1,C,h,w]), NAME.rgb (the image's bytes), NAME.f32 (the answer, little
endian), and models.json: [{"name", "step": what one step of the last quantisation is worth, "left": operators on bytes that
stay with tract}].
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

BYTES = {False: np.uint8, True: np.int8}
# Products of bytes in one instruction, whose sums are exact.
HAS_VNNI = "vnni" in Path("/proc/cpuinfo").read_text()


class Tensor:
    """A byte tensor of the graph. `square` is the mean of (byte - zero)^2, about."""

    def __init__(self, name, channels, scale, zero, signed, square):
        self.name, self.channels, self.scale = name, channels, np.float32(scale)
        self.zero, self.signed, self.square = zero, signed, square


class Model:
    def __init__(self, seed, height=17, width=13, image_scale=1 / 255, image_zero=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants, self.size, self.has_signed, self.opset = [], [], (height, width), False, 13
        self.image = Tensor("chw", 3, image_scale, image_zero, False, 74**2 + (127.5 - image_zero) ** 2)
        self.node("Transpose", ["image"], "chw", perm=[0, 3, 1, 2])

    def node(self, kind, inputs, output=None, **attributes):
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, values, kind):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def quantisation(self, tensor):
        return [self.constant(tensor.scale, np.float32), self.constant(tensor.zero, BYTES[tensor.signed])]

    def result(self, channels, scale, zero, signed):
        zero = zero if zero is not None else int(self.rng.integers(40, 216)) - 128 * signed
        centre = -0.5 if signed else 127.5
        return Tensor(None, channels, scale, zero, signed, 50**2 + (centre - zero) ** 2)

    def conv(self, x, out, kernel, stride=1, pads=0, zero=None, depthwise=False, bias=True, per_channel=True, power_of_two=False, **more):
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        out = x.channels if depthwise else out
        shape = (out, 1 if depthwise else x.channels, *kernel)
        # See `finish` for the i8 activations.
        largest = 64 if x.signed else 128
        weights = self.rng.integers(1 - largest, largest, shape)
        weights.flat[:: max(1, weights.size // 7)] = largest - 1
        weights.flat[3 :: max(1, weights.size // 5)] = -largest
        scales = self.rng.uniform(0.002, 0.01, out if per_channel else ()).astype(np.float32)
        terms = int(np.prod(shape[1:]))
        spread = np.sqrt(terms * x.square) * 0.58 * largest
        y_scale = 5 * spread * float(x.scale) * float(np.mean(scales)) / 255
        if power_of_two:
            # Sums that lie exactly between two steps are frequent.
            scales = np.full_like(scales, 2.0**-7)
            y_scale = 2.0 ** np.round(np.log2(5 * spread * float(x.scale) * 2.0**-7 / 255))
        y = self.result(out, y_scale, zero, x.signed)
        inputs = [x.name, *self.quantisation(x), self.constant(weights, np.int8), self.constant(scales, np.float32)]
        inputs += [self.constant(np.zeros_like(scales), np.int8), *self.quantisation(y)]
        if bias:
            inputs.append(self.constant(self.rng.normal(0, spread / 2, out), np.int32))
        pads = pads if isinstance(pads, list) else [pads] * 4
        attributes = dict(kernel_shape=kernel, strides=[stride] * 2, pads=pads, group=out if depthwise else 1)
        attributes |= more
        y.name = self.node("QLinearConv", inputs, **attributes)
        return y

    def real(self, x):
        return self.node("DequantizeLinear", [x.name, *self.quantisation(x)])

    def add(self, a, b, relu=False, signed=False, reals=None):
        """`reals`: the dequantised tensors, where they are there already."""
        y = self.result(a.channels, 1.3 * max(a.scale, b.scale), None, signed)
        total = self.node("Add", reals or [self.real(a), self.real(b)])
        total = self.node("Relu", [total]) if relu else total
        y.name = self.node("QuantizeLinear", [total, *self.quantisation(y)])
        return y

    def bytes_of(self, name, y):
        y.name = self.node("QuantizeLinear", [name, *self.quantisation(y)])
        return y

    def like(self, x, name, channels=None):
        return Tensor(name, channels or x.channels, x.scale, x.zero, x.signed, x.square)

    def max_pool(self, x, kernel, stride, pads=0):
        pads = pads if isinstance(pads, list) else [pads] * 4
        name = self.node("MaxPool", [x.name], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)
        return self.like(x, name)

    def resize(self, x, down, across):
        scales = self.constant([1, 1, down, across], np.float32)
        how = dict(mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")
        return self.like(x, self.node("Resize", [x.name, "", scales], **how))

    def concat(self, *parts):
        name = self.node("Concat", [p.name for p in parts], axis=1)
        return self.like(parts[0], name, sum(p.channels for p in parts))

    def same_quantisation(self, x, y):
        """Lets `y`, just written by a convolution, have the quantisation of `x`."""
        scale, zero = self.quantisation(x)
        self.nodes[-1].input[6:8] = [scale, zero]
        return Tensor(y.name, y.channels, x.scale, x.zero, x.signed, x.square)

    def signed(self):
        """i8 from the u8 image: the residual addition is the one operator that goes from one to the other."""
        self.has_signed = True
        a, b = self.conv(self.image, 20, 3, pads=1), self.conv(self.image, 20, 1)
        return self.add(a, b, signed=True)

    def finish(self, folder, name, last):
        self.node("DequantizeLinear", [last.name, *self.quantisation(last)], "anomaly_map")
        height, width = self.size
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
        result = helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, [1, last.channels, None, None])
        graph = helper.make_graph(self.nodes, name, [image], [result], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)], ir_version=8)
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # On a CPU without VNNI, ONNX Runtime saturates the sum of two products, unless it is told not to. With VNNI it need not be told, and was
        # once seen to fail on i8 activations when it was.
        if not self.has_signed or not HAS_VNNI:
            options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        pixels = self.rng.integers(0, 256, (1, height, width, 3), np.uint8)
        # Saturated corners, as cameras give them.
        pixels[:, :4, :4], pixels[:, -4:, -4:] = 0, 255
        (answer,) = session.run(["anomaly_map"], {"image": pixels})
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
        (folder / f"{name}.rgb").write_bytes(pixels.tobytes())
        (folder / f"{name}.f32").write_bytes(answer.astype("<f4").tobytes())
        return {"name": name, "step": float(last.scale), "left": LEFT.get(name, [])}


def dense(**how):
    return lambda m: m.conv(m.image, 40, **how)


def depthwise(**how):
    return lambda m: m.conv(m.conv(m.image, 37, 3, pads=1), None, depthwise=True, **how)


def chain(m):
    x = m.conv(m.image, 40, 3, stride=2, pads=[0, 0, 1, 1])
    return m.conv(m.conv(m.conv(x, 200, 1), 130, 1), 70, 3, pads=1)


def zero_points(zero):
    return lambda m: m.conv(m.conv(m.image, 24, 3, pads=1, zero=zero), 30, 5, pads=2, zero=zero)


def signed_chain(m):
    x = m.conv(m.signed(), 33, 3, pads=[1, 0, 2, 1])
    x = m.conv(x, None, 3, pads=1, depthwise=True, zero=-128)
    return m.conv(x, 18, 1, zero=127)


def residual(relu, signed):
    def build(m):
        a = m.signed() if signed else m.conv(m.image, 20, 3, pads=1)
        return m.add(a, m.conv(a, a.channels, 3, pads=1), relu, signed)

    return build


def two_residuals(m):
    # The sum before is read by the next sum and by a convolution: its dequantised values have two readers.
    a, b, c = m.conv(m.image, 20, 3, pads=1), m.conv(m.image, 20, 1), m.conv(m.image, 20, 5, pads=2)
    reals = [m.real(a), m.real(b), m.real(c)]
    first, second = m.add(a, b, reals=reals[:2]), m.add(b, c, relu=True, reals=reals[1:])
    return m.add(first, m.conv(second, 20, 3, pads=1))


def inverted_residual(m):
    x = m.conv(m.image, 16, 3, stride=2, pads=[0, 0, 1, 1])
    wide = m.conv(m.conv(x, 96, 1, zero=0), None, 3, pads=1, depthwise=True, zero=0)
    return m.add(x, m.conv(wide, 16, 1))


def image_with_one_more_channel(m):
    pads = m.constant([0, 0, 0, 0, 0, 1, 0, 0], np.int64)
    name = m.node("Pad", ["chw", pads, m.constant(255, np.uint8)])
    return m.conv(m.like(m.image, name, 4), 24, 7, stride=2, pads=3)


def image_and_more_readers(m):
    # The image is read by two convolutions with different borders, one of them depthwise.
    a, b = m.conv(m.image, 3, 5, pads=[2, 2, 2, 2]), m.conv(m.image, None, 3, pads=1, depthwise=True)
    return m.add(a, b)


def float_between(signed):
    # Two regions: bytes of the first go to the second directly and through a layer in float.
    def build(m):
        x = m.signed() if signed else m.conv(m.image, 20, 3, pads=1)
        y = m.result(20, 1 / 255, 0, signed)
        y.name = m.node("QuantizeLinear", [m.node("Sigmoid", [m.real(x)]), *m.quantisation(y)])
        return m.add(x, m.conv(y, 20, 3, pads=1), signed=signed)

    return build


def activation(kind, signed=False, **attributes):
    # Between two quantisations, the result's zero point low, as much of it is negative only by a little.
    def build(m):
        x = m.signed() if signed else m.conv(m.image, 20, 3, pads=1)
        y = m.result(20, 0.7 * x.scale, None, signed)
        y = m.bytes_of(m.node(kind, [m.real(x)], **attributes), y)
        return m.conv(y, 18, 3, pads=1)

    return build


def leaky_relu_of_bytes(signed):
    # ONNX Runtime's own operator.
    def build(m):
        x = m.signed() if signed else m.conv(m.image, 20, 3, pads=1)
        y = m.result(20, 0.7 * x.scale, None, signed)
        inputs = [x.name, *m.quantisation(x), *m.quantisation(y)]
        y.name = m.node("QLinearLeakyRelu", inputs, domain="com.microsoft", alpha=0.2)
        return m.conv(y, 18, 3, pads=1)

    return build


def layer_norm(affine, bias, signed=False):
    # Over channels, height and width; 20 channels leave lanes behind the last.
    def build(m):
        m.opset = 17
        x = m.signed() if signed else m.conv(m.image, 20, 3, pads=1)
        shape = (x.channels, *m.size)
        scale = m.rng.normal(1, 0.3, shape) if affine else np.ones(shape)
        inputs = [m.real(x), m.constant(scale, np.float32)]
        if bias:
            inputs.append(m.constant(m.rng.normal(0, 0.3, shape), np.float32))
        y = m.bytes_of(m.node("LayerNormalization", inputs, axis=1, epsilon=1e-5), m.result(x.channels, 8 / 255, None, signed))
        return m.conv(y, 18, 3, pads=1)

    return build


def modulation(signed):
    # A tensor scaled and moved by two that are made of another one.
    def build(m):
        x = m.signed() if signed else m.conv(m.image, 20, 3, pads=1)
        z = m.conv(x, 8, 1)
        gamma, beta = m.conv(z, 20, 3, pads=1), m.conv(z, 20, 1)
        scaled = m.node("Mul", [m.real(x), m.real(gamma)])
        moved = m.node("Add", [scaled, m.real(beta)])
        largest = 60 * float(x.scale) * 60 * float(gamma.scale) + 60 * float(beta.scale)
        return m.conv(m.bytes_of(moved, m.result(20, largest / 100, None, signed)), 18, 3, pads=1)

    return build


def modulated_constant(signed):
    # Tensors of the file in place of computed ones. No convolution reads them, and nothing twice: ONNX Runtime computes what it can when it
    # loads a model, convolutions without the precision that it is asked for, and fails where it meets the same folded constant again.
    def build(m):
        def constant():
            x = m.result(20, 1 / 50, None, signed)
            low = -128 if signed else 0
            x.name = m.node("Identity", [m.constant(m.rng.integers(low, low + 256, (1, 20, *m.size)), BYTES[signed])])
            return x

        z = m.signed() if signed else m.conv(m.image, 20, 3, pads=1)
        x, beta = constant(), m.conv(z, 20, 3, pads=1)
        moved = m.node("Add", [m.node("Mul", [m.real(x), m.real(z)]), m.real(beta)])
        largest = 60 * float(x.scale) * 60 * float(z.scale) + 60 * float(beta.scale)
        moved = m.bytes_of(moved, m.result(20, largest / 100, None, signed))
        return m.conv(m.add(moved, constant(), signed=signed), 18, 3, pads=1)

    return build


def depth_to_space(signed):
    def build(m):
        x = m.conv(m.signed() if signed else m.image, 4 * 20, 3, pads=1)
        return m.conv(m.like(x, m.node("DepthToSpace", [x.name], blocksize=2, mode="DCR"), 20), 18, 3, pads=1)

    return build


def pooled_statistics(signed):
    # Of each channel the mean, the mean of the 5 largest values and that of the 5 smallest, of 221.
    def build(m):
        x = m.signed() if signed else m.conv(m.image, 20, 3, pads=1)
        real, cells = m.real(x), int(np.prod(m.size))
        flat = m.node("Reshape", [real, m.constant([1, x.channels, cells], np.int64)])
        parts = [m.node("ReduceMean", [real], axes=[2, 3], keepdims=1)]
        for largest in (1, 0):
            values = m.node("TopK", [flat, m.constant([5], np.int64)], axis=2, largest=largest, sorted=1)
            m.nodes[-1].output.append(f"{values}.places")
            mean = m.node("ReduceMean", [values], axes=[2], keepdims=1)
            parts.append(m.node("Reshape", [mean, m.constant([1, x.channels, 1, 1], np.int64)]))
        y = m.result(3 * x.channels, 0.8 * x.scale, None, signed)
        return m.bytes_of(m.node("Concat", parts, axis=1), y)

    return build


def nearest(m):
    # Distance to the nearest of 90 vectors, bytes like those that they are compared with; exact sums become floats.
    x, count = m.conv(m.image, 20, 3, pads=1), 90
    weights = m.rng.integers(-128, 128, (count, x.channels, 1, 1)).astype(np.int8)
    scales = (float(x.scale) * m.rng.uniform(0.5, 1.0, (1, count, 1, 1))).astype(np.float32)
    squares = np.sum((weights.reshape(1, count, -1) * scales.reshape(1, count, 1)) ** 2, axis=2).reshape(1, count, 1, 1)
    zero = m.constant(x.zero, np.uint8)
    sums = m.node("ConvInteger", [x.name, m.constant(weights, np.int8), zero], kernel_shape=[1, 1])
    scaled = m.node("Mul", [m.node("Cast", [sums], to=TensorProto.FLOAT), m.constant(-2 * x.scale * scales, np.float32)])
    products = m.node("Add", [scaled, m.constant(squares, np.float32)])
    least = m.node("ReduceMin", [products], axes=[1], keepdims=1)
    real = m.real(x)
    own = m.node("ReduceSum", [m.node("Mul", [real, real]), m.constant([1], np.int64)], keepdims=1)
    distance = m.node("Sqrt", [m.node("Relu", [m.node("Add", [least, own])])])
    return m.bytes_of(distance, m.result(1, 2 * x.scale, 0, False))


def grouped(m):
    x = m.conv(m.image, 16, 3, pads=1)
    return m.conv(m.like(x, x.name, 8), 12, 3, pads=1, group=2)


def concatenation_with_the_image(m):
    x = m.same_quantisation(m.image, m.conv(m.image, 10, 1))
    return m.conv(m.concat(m.image, x, m.image), 12, 3, pads=1)


def concatenation(m):
    x = m.conv(m.image, 21, 3, pads=1)
    y = m.same_quantisation(x, m.conv(x, 10, 1))
    z = m.same_quantisation(x, m.conv(m.image, 37, 1))
    return m.conv(m.concat(x, y, z), 30, 3, pads=1)


def pyramid(m):
    fine = m.conv(m.image, 24, 3, pads=1)
    coarse = m.conv(m.max_pool(fine, 2, 2), 24, 3, pads=1)
    up = m.same_quantisation(fine, m.conv(m.resize(coarse, 2, 2), 24, 1))
    return m.conv(m.concat(fine, up), 20, 3, pads=[1, 1, 1, 1])


MODELS = {
    "dense_1x1": dense(kernel=1),
    "dense_3x3": dense(kernel=3, pads=1),
    "dense_3x3_without_pads": dense(kernel=3),
    "dense_3x3_stride_2_uneven_pads": dense(kernel=3, stride=2, pads=[0, 0, 1, 1]),
    "dense_5x5_stride_2": dense(kernel=5, stride=2, pads=2),
    "dense_7x7_stride_2": dense(kernel=7, stride=2, pads=3),
    "dense_odd_pads": dense(kernel=4, pads=[1, 2, 0, 3]),
    "dense_1x7": dense(kernel=(1, 7), pads=[0, 3, 0, 3]),
    "dense_7x1_stride_3": dense(kernel=(7, 1), stride=3, pads=[3, 0, 3, 0]),
    "dense_without_bias": dense(kernel=3, pads=1, bias=False),
    "dense_one_weight_scale": dense(kernel=3, pads=1, per_channel=False),
    "dense_ties": dense(kernel=3, pads=1, power_of_two=True),
    "dense_chain": chain,
    "zero_points_0": zero_points(0),
    "zero_points_255": zero_points(255),
    "depthwise_3x3": depthwise(kernel=3, pads=1),
    "depthwise_3x3_stride_2_uneven_pads": depthwise(kernel=3, stride=2, pads=[0, 0, 1, 1]),
    "depthwise_5x5": depthwise(kernel=5, pads=2),
    "depthwise_7x7_stride_2": depthwise(kernel=7, stride=2, pads=[3, 2, 3, 1]),
    "signed_chain": signed_chain,
    "residual": residual(False, False),
    "residual_relu": residual(True, False),
    "residual_signed": residual(False, True),
    "residual_relu_signed": residual(True, True),
    "residuals_that_share": two_residuals,
    "inverted_residual": inverted_residual,
    "image_with_one_more_channel": image_with_one_more_channel,
    "image_and_more_readers": image_and_more_readers,
    "max_pool_3x3": lambda m: m.max_pool(m.conv(m.image, 20, 3, pads=1), 3, 2, 1),
    "max_pool_signed": lambda m: m.max_pool(m.signed(), 3, 1, [0, 1, 2, 1]),
    "resize": lambda m: m.resize(m.conv(m.image, 20, 3, pads=1), 2, 3),
    "resize_signed": lambda m: m.resize(m.signed(), 2, 2),
    "float_between": float_between(False),
    "float_between_signed": float_between(True),
    "leaky_relu": activation("LeakyRelu", alpha=0.2),
    "leaky_relu_signed": activation("LeakyRelu", signed=True, alpha=0.05),
    "relu_on_bytes": activation("Relu"),
    "abs_on_signed_bytes": activation("Abs", signed=True),
    "leaky_relu_of_bytes": leaky_relu_of_bytes(False),
    "leaky_relu_of_bytes_signed": leaky_relu_of_bytes(True),
    "layer_norm": layer_norm(False, False),
    "layer_norm_affine": layer_norm(True, True),
    "layer_norm_without_bias": layer_norm(True, False),
    "layer_norm_signed": layer_norm(True, True, signed=True),
    "modulation": modulation(False),
    "modulation_signed": modulation(True),
    "modulated_constant": modulated_constant(False),
    "modulated_constant_signed": modulated_constant(True),
    "depth_to_space": depth_to_space(False),
    "depth_to_space_signed": depth_to_space(True),
    "pooled_statistics": pooled_statistics(False),
    "pooled_statistics_signed": pooled_statistics(True),
    "nearest": nearest,
    "grouped": grouped,
    "dilated": lambda m: m.conv(m.conv(m.image, 16, 1), 24, 3, pads=2, dilations=[2, 2]),
    "max_pool_of_the_image": lambda m: m.max_pool(m.image, 3, 2, 1),
    "resized_image": lambda m: m.resize(m.image, 2, 2),
    "concatenation_with_the_image": concatenation_with_the_image,
    "concatenation": concatenation,
    "pyramid": pyramid,
}


# What stays with tract, by operator.
LEFT = {
    "grouped": ["QLinearConv"],
    "dilated": ["QLinearConv"],
    "nearest": ["QuantizeLinear"],
    "float_between": ["QuantizeLinear"],
    "float_between_signed": ["QuantizeLinear"],
}


def main():
    folder = Path(sys.argv[1])
    written = []
    for seed, (name, build) in enumerate(MODELS.items()):
        size = (18, 14) if name == "pyramid" else (17, 13)
        image = dict(image_scale=2.0**-8) if name == "dense_ties" else {}
        image = dict(image_zero=128) if name == "zero_points_255" else image
        model = Model(seed, *size, **image)
        written.append(model.finish(folder, name, build(model)))
    (folder / "models.json").write_text(json.dumps(written))


main()
