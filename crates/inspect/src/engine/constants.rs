//! Constants and attributes of an ONNX graph, read with their types checked.

use ckaad_int8::shape::ElementType;
use std::collections::HashMap;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

pub struct Constants<'a>(HashMap<&'a str, &'a TensorProto>);

/// A scale and a zero point; the zero point as u8, 128 higher if it was an i8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantisation {
    pub scale: f32,
    pub zero: u8,
    /// What the bytes are in the file.
    pub element: ElementType,
}

/// What a QLinearConv computes with.
pub struct QuantisedConv {
    /// `[out, in / groups, height, width]`.
    pub values: Vec<i8>,
    pub dims: [usize; 4],
    pub bias: Vec<i32>,
    /// `x_scale * w_scale / y_scale` of each output channel.
    pub multipliers: Vec<f32>,
    pub x: Quantisation,
    pub y: Quantisation,
}

impl<'a> Constants<'a> {
    pub fn of(graph: &'a GraphProto) -> Constants<'a> {
        Constants(graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect())
    }

    pub fn get(&self, name: &str) -> Option<&'a TensorProto> {
        self.0.get(name).copied()
    }

    pub fn f32s(&self, name: &str) -> Option<Vec<f32>> {
        let tensor = self.get(name).filter(|t| t.data_type == DataType::Float as i32)?;
        if !tensor.float_data.is_empty() {
            return Some(tensor.float_data.clone());
        }
        Some(tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    pub fn f32(&self, name: &str) -> Option<f32> {
        one(self.f32s(name)?)
    }

    pub fn i32s(&self, name: &str) -> Option<Vec<i32>> {
        let tensor = self.get(name).filter(|t| t.data_type == DataType::Int32 as i32)?;
        if !tensor.int32_data.is_empty() {
            return Some(tensor.int32_data.clone());
        }
        Some(tensor.raw_data.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    pub fn i64s(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.get(name).filter(|t| t.data_type == DataType::Int64 as i32)?;
        if !tensor.int64_data.is_empty() {
            return Some(tensor.int64_data.clone());
        }
        let eight = |b: &[u8]| b.try_into().map(i64::from_le_bytes).ok();
        tensor.raw_data.chunks_exact(8).map(eight).collect()
    }

    /// Bytes, and whether they are u8 or i8.
    pub fn bytes(&self, name: &str) -> Option<(Vec<u8>, ElementType)> {
        let tensor = self.get(name)?;
        let is = |kind: DataType| tensor.data_type == kind as i32;
        let element = match () {
            () if is(DataType::Uint8) => ElementType::U8,
            () if is(DataType::Int8) => ElementType::I8,
            () => return None,
        };
        if tensor.int32_data.is_empty() {
            return Some((tensor.raw_data.clone(), element));
        }
        Some((tensor.int32_data.iter().map(|&v| v as u8).collect(), element))
    }

    /// The four sides of a convolution's weights.
    pub fn sides(&self, name: &str) -> Option<[usize; 4]> {
        let dims = &self.get(name)?.dims;
        let sides: Vec<usize> = dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        sides.try_into().ok().filter(|sides: &[usize; 4]| sides.iter().all(|side| (1..1 << 16).contains(side)))
    }

    /// One value for all, or one a channel of `[1,C,H,W]`.
    pub fn per_channel(&self, name: &str) -> Option<Vec<f32>> {
        let (dims, values) = (&self.get(name)?.dims, self.f32s(name)?);
        let along_channels = matches!(dims.as_slice(), &[1, c, 1, 1] | &[c, 1, 1] if c == values.len() as i64);
        (values.len() == 1 || along_channels).then_some(values)
    }

    /// Of a whole tensor: one scale, finite and above 0, and one zero point.
    pub fn quantisation(&self, scale: &str, zero: &str) -> Option<Quantisation> {
        let scale = self.f32(scale).filter(|s| s.is_finite() && *s > 0.0)?;
        let (zero, element) = self.bytes(zero)?;
        Some(Quantisation { scale, zero: one(zero)? ^ element.flip(), element })
    }

    /// A QLinearConv's weights, as many as its shape says; none where its weights are not i8 around 0.
    pub fn quantised_conv(&self, node: &NodeProto) -> Option<QuantisedConv> {
        let input = |i: usize| node.input.get(i).map(String::as_str);
        let (x, y) = (self.quantisation(input(1)?, input(2)?)?, self.quantisation(input(6)?, input(7)?)?);
        let dims = self.sides(input(3)?)?;
        let (values, ElementType::I8) = self.bytes(input(3)?)? else { return None };
        let (zeros, ElementType::I8) = self.bytes(input(5)?)? else { return None };
        let mut scales = self.f32s(input(4)?)?;
        if let &[scale] = scales.as_slice() {
            scales = vec![scale; dims[0]];
        }
        let bias = match input(8).filter(|name| !name.is_empty()) {
            Some(name) => self.i32s(name)?,
            None => vec![0; dims[0]],
        };
        let sizes = values.len() == dims.iter().product::<usize>() && [scales.len(), bias.len()] == [dims[0]; 2];
        let symmetric = !zeros.is_empty() && zeros.iter().all(|&zero| zero == 0);
        (sizes && symmetric).then(|| QuantisedConv {
            values: values.iter().map(|&w| w as i8).collect(),
            dims,
            bias,
            multipliers: scales.iter().map(|w_scale| x.scale * w_scale / y.scale).collect(),
            x,
            y,
        })
    }
}

fn one<T>(values: Vec<T>) -> Option<T> {
    let mut values = values.into_iter();
    values.next().filter(|_| values.next().is_none())
}

/// The attribute's number, or the default where it is absent.
pub fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    node.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.f)
}

/// The attribute's integers, or the default where it is absent.
pub fn ints(node: &NodeProto, name: &str, default: &[i64]) -> Vec<i64> {
    node.attribute.iter().find(|a| a.name == name).map_or_else(|| default.to_vec(), |a| a.ints.clone())
}

pub fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    node.attribute.iter().find(|a| a.name == name).map_or(default, |a| a.i)
}

pub fn text<'a>(node: &'a NodeProto, name: &str, default: &'a str) -> &'a str {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.map_or(default, |a| std::str::from_utf8(&a.s).unwrap_or(""))
}
