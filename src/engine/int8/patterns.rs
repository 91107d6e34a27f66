//! ONNX nodes → [`Op`]s: what each operator's kernels can do, and nothing else.

use super::constants::{Constants, Quantisation, int, ints, text};
use super::kernels::{AddRow, CosineRow};
use super::pack::Weights;
use super::region::{Activation, Conv, FloatConv, Input, InstanceNorm, Op, Window};
use std::collections::HashMap;
use tract_onnx::pb::{GraphProto, NodeProto, tensor_proto::DataType};

/// A graph with what the patterns look up.
pub struct Graph<'a> {
    pub nodes: &'a [NodeProto],
    pub constants: Constants<'a>,
    /// The node that writes a tensor.
    writers: HashMap<&'a str, usize>,
    /// How many inputs and graph outputs a tensor is.
    uses: HashMap<&'a str, usize>,
}

/// What kind of tensors an operator reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Bytes,
    Floats,
    Either,
}

/// An operator, or a few that are one operator of ours.
#[derive(Debug)]
pub struct Match {
    pub op: Op,
    /// Names of the tensors that it reads.
    pub inputs: Vec<String>,
    /// What it reads.
    pub reads: Reads,
    /// Nodes that it stands for, its own last node first. Others may read the results of the DequantizeLinears among them, and of no others.
    pub nodes: Vec<usize>,
}

/// A tensor, and what is done to its values (`real` ones, or bytes) for every channel, or alike for all.
struct Affine {
    name: String,
    scales: Vec<f32>,
    offsets: Vec<f32>,
    real: bool,
}

impl<'a> Graph<'a> {
    pub fn of(graph: &'a GraphProto) -> Graph<'a> {
        let mut uses = HashMap::new();
        let outputs = graph.output.iter().map(|o| o.name.as_str());
        for name in graph.node.iter().flat_map(|n| n.input.iter().map(String::as_str)).chain(outputs) {
            *uses.entry(name).or_insert(0) += 1;
        }
        let written = |(i, n): (usize, &'a NodeProto)| n.output.iter().map(move |o| (o.as_str(), i));
        let writers = graph.node.iter().enumerate().flat_map(written).collect();
        Graph { nodes: &graph.node, constants: Constants::of(graph), writers, uses }
    }

    /// The node that writes `name`, if it is an `op` with so many inputs.
    fn writer(&self, name: &str, op: &str, inputs: usize) -> Option<(usize, &'a NodeProto)> {
        let &i = self.writers.get(name)?;
        let node = &self.nodes[i];
        (node.op_type == op && node.input.len() == inputs).then_some((i, node))
    }

    /// As [`Graph::writer`], of a tensor that nobody else reads.
    fn only(&self, name: &str, op: &str, inputs: usize) -> Option<(usize, &'a NodeProto)> {
        self.writer(name, op, inputs).filter(|_| self.uses.get(name) == Some(&1))
    }

    /// The operator whose last node is `index`. Whether its inputs are bytes at all is the caller's to know.
    pub fn find(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let data = || node.input.first().map(|x| vec![x.clone()]);
        let (op, inputs, reads) = match node.op_type.as_str() {
            "QLinearConv" => (self.conv(node)?, data()?, Reads::Bytes),
            "QuantizeLinear" => return self.add(index).or_else(|| self.quantise(index)),
            "Conv" => return self.float_conv(index, index, Activation::NONE),
            "Relu" | "LeakyRelu" | "Clip" | "Abs" => return self.activated(index),
            "Add" => return self.float_add(index, index, Activation::NONE),
            "Mul" => return self.image(index),
            "Sub" => return self.cosine_error(index),
            "Div" => return self.unit(index),
            "Sqrt" => return self.distance(index),
            "Pad" => return self.appended_channel(index),
            "AveragePool" => {
                let counted = int(node, "count_include_pad", 0) != 0;
                (Op::AveragePool(window(node, None).filter(|_| !counted)?), data()?, Reads::Floats)
            }
            "InstanceNormalization" => (self.instance_norm(node)?, data()?, Reads::Floats),
            "DequantizeLinear" => {
                let q = self.quantisation(node, 1)?;
                (Op::Float { scale: q.scale, zero: f32::from(q.zero) }, data()?, Reads::Bytes)
            }
            "Transpose" => {
                let last = ints(node, "perm", &[]) == [0, 3, 1, 2];
                (last.then_some(input(None))?, data()?, Reads::Bytes)
            }
            "MaxPool" => (Op::MaxPool(window(node, None)?), data()?, Reads::Either),
            "Concat" => ((int(node, "axis", 0) == 1).then_some(Op::Concat)?, node.input.clone(), Reads::Either),
            "Resize" => match self.linear_factors(node) {
                Some(factors) => (Op::Enlarge(factors), data()?, Reads::Floats),
                None => (Op::Upsample(self.nearest_factors(node)?), data()?, Reads::Either),
            },
            _ => return None,
        };
        Some(Match { op, inputs, reads, nodes: vec![index] })
    }

    fn quantisation(&self, node: &NodeProto, first: usize) -> Option<Quantisation> {
        self.constants.quantisation(node.input.get(first)?, node.input.get(first + 1)?)
    }

    fn conv(&self, node: &NodeProto) -> Option<Op> {
        let (x, y) = (self.quantisation(node, 1)?, self.quantisation(node, 6)?);
        let tensor = self.constants.get(node.input.get(3)?)?;
        let dims: Vec<usize> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        let dims: [usize; 4] =
            dims.try_into().ok().filter(|d: &[usize; 4]| d.iter().all(|d| (1..1 << 16).contains(d)))?;
        let (values, true) = self.constants.bytes(&node.input[3])? else { return None };
        let (zeros, true) = self.constants.bytes(node.input.get(5)?)? else { return None };
        let out = dims[0];
        let mut scales = self.constants.f32s(node.input.get(4)?)?;
        if scales.len() == 1 {
            scales = vec![scales[0]; out];
        }
        let bias = match node.input.get(8).filter(|name| !name.is_empty()) {
            Some(name) => self.constants.i32s(name)?,
            None => vec![0; out],
        };
        let groups = int(node, "group", 1);
        let depthwise = groups > 1;
        let weights = Weights {
            values: values.iter().map(|&w| w as i8).collect(),
            dims,
            bias,
            multipliers: scales.iter().map(|w| x.scale * w / y.scale).collect(),
            x_zero: x.zero,
            y_zero: y.zero,
        };
        let sizes = weights.values.len() == dims.iter().product::<usize>()
            && weights.multipliers.len() == out
            && weights.bias.len() == out
            && (!depthwise || (groups == out as i64 && dims[1] == 1));
        let symmetric = zeros.iter().all(|&z| z == 0);
        let window = window(node, Some([dims[2], dims[3]]))?;
        (sizes && symmetric && weights.bounded()).then_some(Op::Conv(Conv { weights, window, depthwise }))
    }

    /// DequantizeLinear of two tensors → Add → (Relu) → QuantizeLinear.
    fn add(&self, index: usize) -> Option<Match> {
        let last = &self.nodes[index];
        let y = self.quantisation(last, 1)?;
        let mut nodes = vec![index];
        let mut sum = last.input[0].as_str();
        let mut low = 0;
        if let Some((i, relu)) = self.only(sum, "Relu", 1) {
            nodes.push(i);
            low = y.zero;
            sum = &relu.input[0];
        }
        let (i, add) = self.only(sum, "Add", 2)?;
        nodes.push(i);
        let (i, a) = self.writer(&add.input[0], "DequantizeLinear", 3)?;
        let (j, b) = self.writer(&add.input[1], "DequantizeLinear", 3)?;
        nodes.extend([i, j]);
        let (qa, qb) = (self.quantisation(a, 1)?, self.quantisation(b, 1)?);
        let (scale_a, scale_b) = (qa.scale / y.scale, qb.scale / y.scale);
        let offset = f32::from(y.zero) - (f32::from(qa.zero) * scale_a + f32::from(qb.zero) * scale_b);
        // What makes the conversion to i32 safe: 255 * (a + b) + |offset| stays far below 2^30.
        if !(scale_a < 1e5 && scale_b < 1e5) {
            return None;
        }
        let how = AddRow { scale_a, scale_b, offset, low: i32::from(low), high: 255 };
        Some(Match {
            op: Op::Add(how),
            inputs: vec![a.input[0].clone(), b.input[0].clone()],
            reads: Reads::Bytes,
            nodes,
        })
    }

    fn nearest_factors(&self, node: &NodeProto) -> Option<[usize; 2]> {
        let plain = text(node, "mode", "nearest") == "nearest"
            && text(node, "nearest_mode", "round_prefer_floor") == "floor"
            && text(node, "coordinate_transformation_mode", "half_pixel") == "asymmetric";
        plain.then_some(self.factors(node)?)
    }

    fn linear_factors(&self, node: &NodeProto) -> Option<[usize; 2]> {
        let plain = text(node, "mode", "nearest") == "linear"
            && text(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel";
        plain.then_some(self.factors(node)?)
    }

    /// Of a Resize by whole factors, down and across.
    fn factors(&self, node: &NodeProto) -> Option<[usize; 2]> {
        let scales = self.constants.f32s(node.input.get(2)?)?;
        let &[1.0, 1.0, down, across] = scales.as_slice() else { return None };
        let whole = |f: f32| (f.fract() == 0.0 && (1.0..=16.0).contains(&f)).then_some(f as usize);
        Some([whole(down)?, whole(across)?])
    }

    /// Pad with one more channel: of floats, or of the channels-last image right behind its Transpose.
    fn appended_channel(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let &[0, 0, 0, 0, 0, 1, 0, 0] = self.constants.i64s(node.input.get(1)?)?.as_slice() else { return None };
        if text(node, "mode", "constant") != "constant" {
            return None;
        }
        if let Some(value) = self.constants.f32(node.input.get(2)?) {
            let inputs = vec![node.input[0].clone()];
            return Some(Match { op: Op::Append(value), inputs, reads: Reads::Floats, nodes: vec![index] });
        }
        let (value, false) = self.constants.bytes(&node.input[2])? else { return None };
        let &[value] = value.as_slice() else { return None };
        let (i, transpose) = self.writer(&node.input[0], "Transpose", 1)?;
        let last = ints(transpose, "perm", &[]) == [0, 3, 1, 2];
        let inputs = transpose.input.clone();
        last.then(|| Match { op: input(Some(value)), inputs, reads: Reads::Bytes, nodes: vec![index, i] })
    }

    /// Bytes → Cast → Sub → Mul: the image as the network wants it.
    fn image(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let scale = self.constants.f32(node.input.get(1)?)?;
        let (i, centred) = self.only(&node.input[0], "Sub", 2)?;
        let zero = self.constants.f32(&centred.input[1])?;
        let (j, cast) = self.only(&centred.input[0], "Cast", 1)?;
        let to_f32 = int(cast, "to", 0) == i64::from(DataType::Float as i32);
        let inputs = cast.input.clone();
        to_f32.then(|| Match { op: Op::Float { scale, zero }, inputs, reads: Reads::Bytes, nodes: vec![index, i, j] })
    }

    fn instance_norm(&self, node: &NodeProto) -> Option<Op> {
        let (scale, offset) = (self.constants.f32s(node.input.get(1)?)?, self.constants.f32s(node.input.get(2)?)?);
        let epsilon = node.attribute.iter().find(|a| a.name == "epsilon").map_or(1e-5, |a| a.f);
        Some(Op::InstanceNorm(InstanceNorm { scale, offset, epsilon }))
    }

    /// The Add `add` of two tensors, whose result as `index` gives it is wanted.
    fn float_add(&self, index: usize, add: usize, activation: Activation) -> Option<Match> {
        let node = &self.nodes[add];
        let variable = node.input.len() == 2 && node.input.iter().all(|x| self.constants.get(x).is_none());
        let nodes = if index == add { vec![add] } else { vec![index, add] };
        let (op, inputs) = (Op::FloatAdd(activation), node.input.clone());
        variable.then_some(Match { op, inputs, reads: Reads::Floats, nodes })
    }

    /// `1 - a·b / sqrt(a·a * b·b + epsilon)` along the channels of two dequantised tensors, each perhaps scaled and moved per channel.
    fn cosine_error(&self, index: usize) -> Option<Match> {
        let last = &self.nodes[index];
        let mut nodes = vec![index];
        let mut step = |name: &str, op: &str, inputs: usize| {
            let (i, node) = self.only(name, op, inputs)?;
            nodes.push(i);
            Some(node)
        };
        if self.constants.f32(last.input.first()?)? != 1.0 {
            return None;
        }
        let division = step(last.input.get(1)?, "Div", 2)?;
        let root = step(&division.input[1], "Sqrt", 1)?;
        let guarded = step(&root.input[0], "Add", 2)?;
        let epsilon = self.constants.f32(&guarded.input[1])?;
        let squares = step(&guarded.input[0], "Mul", 2)?;
        let mut dot = |name: &str| {
            let sum = step(name, "ReduceSum", 2)?;
            let along = self.constants.i64s(&sum.input[1])? == [1] && int(sum, "keepdims", 1) == 1;
            let product = step(&sum.input[0], "Mul", 2)?;
            along.then_some([product.input[0].as_str(), product.input[1].as_str()])
        };
        let [x, y] = dot(&division.input[0])?;
        if dot(&squares.input[0])? != [x, x] || dot(&squares.input[1])? != [y, y] {
            return None;
        }
        let (a, b) = (self.affine(x, &mut nodes)?, self.affine(y, &mut nodes)?);
        let reads = if a.real && b.real { Reads::Floats } else { Reads::Bytes };
        let row = CosineRow { scale_a: a.scales, offset_a: a.offsets, scale_b: b.scales, offset_b: b.offsets, epsilon };
        (a.real == b.real).then(|| Match { op: Op::CosineError(row), inputs: vec![a.name, b.name], reads, nodes })
    }

    /// (DequantizeLinear →) (Mul → Add) → `name`.
    fn affine(&self, name: &str, nodes: &mut Vec<usize>) -> Option<Affine> {
        let mut affine = Affine { name: name.into(), scales: vec![1.0], offsets: vec![0.0], real: true };
        let moved = self.writer(name, "Add", 2).and_then(|(i, add)| {
            let (j, scaled) = self.only(&add.input[0], "Mul", 2)?;
            let (offsets, scales) = (self.constants.f32s(&add.input[1])?, self.constants.f32s(&scaled.input[1])?);
            // The three products read it, and nobody else.
            let whole = self.uses.get(name) == Some(&3) && offsets.len() == scales.len();
            whole.then_some((i, j, scaled.input[0].clone(), scales, offsets))
        });
        if let Some((i, j, name, scales, offsets)) = moved {
            nodes.extend([i, j]);
            affine = Affine { name, scales, offsets, real: true };
        }
        if let Some((i, real)) = self.writer(&affine.name, "DequantizeLinear", 3) {
            nodes.push(i);
            let q = self.quantisation(real, 1)?;
            let zero = f32::from(q.zero);
            for (scale, offset) in affine.scales.iter_mut().zip(&mut affine.offsets) {
                *offset -= zero * q.scale * *scale;
                *scale *= q.scale;
            }
            affine = Affine { name: real.input[0].clone(), real: false, ..affine };
        }
        Some(affine)
    }

    fn quantise(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let q = self.quantisation(node, 1)?;
        let op = Op::Quantise { scale: q.scale, zero: f32::from(q.zero) };
        Some(Match { op, inputs: vec![node.input[0].clone()], reads: Reads::Floats, nodes: vec![index] })
    }

    /// The convolution `conv`, whose result as `index` gives it is wanted.
    fn float_conv(&self, index: usize, conv: usize, activation: Activation) -> Option<Match> {
        let node = &self.nodes[conv];
        let tensor = self.constants.get(node.input.get(1)?)?;
        let dims: Vec<usize> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        let dims: [usize; 4] =
            dims.try_into().ok().filter(|d: &[usize; 4]| d.iter().all(|d| (1..1 << 16).contains(d)))?;
        let values = self.constants.f32s(&node.input[1])?;
        let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(name) => self.constants.f32s(name)?,
            None => vec![0.0; dims[0]],
        };
        let window = window(node, Some([dims[2], dims[3]]))?;
        let groups = int(node, "group", 1);
        let depthwise = groups > 1;
        let sound = (!depthwise || (groups == dims[0] as i64 && dims[1] == 1))
            && values.len() == dims.iter().product::<usize>()
            && bias.len() == dims[0];
        let op = Op::FloatConv(FloatConv { values, dims, bias, window, activation, depthwise });
        let nodes = if index == conv { vec![conv] } else { vec![index, conv] };
        sound.then(|| Match { op, inputs: vec![node.input[0].clone()], reads: Reads::Floats, nodes })
    }

    /// Conv or Add → activation.
    fn activated(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let name = node.input.first()?;
        let &before = self.writers.get(name.as_str())?;
        if self.uses.get(name.as_str()) != Some(&1) {
            return None;
        }
        let activation = match node.op_type.as_str() {
            "Relu" => Activation::Slope(0.0, f32::INFINITY),
            "Abs" => Activation::Slope(-1.0, f32::INFINITY),
            "LeakyRelu" => {
                let slope = node.attribute.iter().find(|a| a.name == "alpha").map_or(0.01, |a| a.f);
                Activation::Slope(slope, f32::INFINITY)
            }
            _ => {
                let (low, high) = (self.constants.f32(node.input.get(1)?)?, self.constants.f32(node.input.get(2)?)?);
                (low == 0.0 && high >= 0.0).then_some(Activation::Slope(0.0, high))?
            }
        };
        match self.nodes[before].op_type.as_str() {
            "Conv" => self.float_conv(index, before, activation),
            "Add" => self.float_add(index, before, activation),
            _ => None,
        }
    }

    /// `x / sqrt(sum x² + epsilon)` along the channels.
    fn unit(&self, index: usize) -> Option<Match> {
        let division = &self.nodes[index];
        let x = division.input.first()?;
        let (i, root) = self.only(division.input.get(1)?, "Sqrt", 1)?;
        let (j, guarded) = self.only(&root.input[0], "Add", 2)?;
        let epsilon = self.constants.f32(&guarded.input[1])?;
        let [k, l] = self.squared_length(&guarded.input[0], x)?;
        Some(Match {
            op: Op::Unit { epsilon },
            inputs: vec![x.clone()],
            reads: Reads::Floats,
            nodes: vec![index, i, j, k, l],
        })
    }

    /// `sqrt(relu(min p + sum x²))`, minimum and sum along the channels.
    fn distance(&self, index: usize) -> Option<Match> {
        let (i, clamped) = self.only(self.nodes[index].input.first()?, "Relu", 1)?;
        let (j, squared) = self.only(&clamped.input[0], "Add", 2)?;
        let (k, smallest) = self.only(&squared.input[0], "ReduceMin", 1)?;
        if ints(smallest, "axes", &[]) != [1] || int(smallest, "keepdims", 1) != 1 {
            return None;
        }
        let (_, sum) = self.writer(&squared.input[1], "ReduceSum", 2)?;
        let (_, product) = self.writer(&sum.input[0], "Mul", 2)?;
        let x = &product.input[0];
        let [l, m] = self.squared_length(&squared.input[1], x)?;
        let inputs = vec![smallest.input[0].clone(), x.clone()];
        Some(Match { op: Op::Distance, inputs, reads: Reads::Floats, nodes: vec![index, i, j, k, l, m] })
    }

    /// The two nodes that make `name` of `x`: `sum x²` along the channels.
    fn squared_length(&self, name: &str, x: &str) -> Option<[usize; 2]> {
        let (i, sum) = self.only(name, "ReduceSum", 2)?;
        let along = self.constants.i64s(&sum.input[1])? == [1] && int(sum, "keepdims", 1) == 1;
        let (j, product) = self.only(&sum.input[0], "Mul", 2)?;
        (along && product.input == [x, x]).then_some([i, j])
    }
}

/// The image: channels last, u8; which of the region's inputs it is, the caller says.
fn input(append: Option<u8>) -> Op {
    Op::Input(Input { index: 0, channels_last: true, signed: false, append })
}

/// `kernel` where the weights say it; otherwise the node's attribute.
fn window(node: &NodeProto, kernel: Option<[usize; 2]>) -> Option<Window> {
    let plain = text(node, "auto_pad", "NOTSET") == "NOTSET"
        && ints(node, "dilations", &[1, 1]) == [1, 1]
        && int(node, "ceil_mode", 0) == 0
        && node.output.len() == 1;
    let small = |values: Vec<i64>| -> Option<Vec<usize>> {
        values.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v < 64)).collect()
    };
    let kernel = match kernel {
        Some(kernel) => kernel,
        None => small(ints(node, "kernel_shape", &[]))?.try_into().ok()?,
    };
    let stride: [usize; 2] = small(ints(node, "strides", &[1, 1]))?.try_into().ok()?;
    let pads: [usize; 4] = small(ints(node, "pads", &[0; 4]))?.try_into().ok()?;
    let sound = kernel.iter().chain(&stride).all(|&v| (1..64).contains(&v));
    (plain && sound).then_some(Window { kernel, stride, pads })
}
