//! The int8 engine: quantised parts of a graph as one operator of ours inside tract.
//!
//! tract's own quantised convolution makes an im2col, the product, and about ten passes over i32 tensors; this one reads bytes,
//! multiplies, requantises in registers and writes bytes.
//!
//! ```text
//! ONNX ─partition─► ONNX with one node a region ─lower─► Region ─memory, pack, cut─► Program ─run, steps, kernels─► bytes, maps
//!        patterns                                 (tract finds the shapes: op)                    pool
//! ```
//!
//! `partition` and `patterns` say what is taken: quantised operators, and the float operators before, between and behind them.
//! `region` is the small language between reading and running. What a region leaves, tract runs. `unsafe` is in `kernels` (instruction
//! sets), `memory`, `run`, `steps` and `rows` (threads write parts of one block of memory) and `pool` (threads run a borrowed function), and
//! nowhere else.

#[forbid(unsafe_code)]
mod constants;
#[forbid(unsafe_code)]
mod cut;
mod kernels;
#[forbid(unsafe_code)]
mod lower;
mod memory;
#[forbid(unsafe_code)]
mod op;
#[forbid(unsafe_code)]
mod pack;
#[forbid(unsafe_code)]
mod partition;
#[forbid(unsafe_code)]
mod patterns;
mod pool;
#[forbid(unsafe_code)]
mod program;
#[forbid(unsafe_code)]
mod region;
mod rows;
mod run;
mod steps;

pub use kernels::{Isa, peak};
pub use op::register;
pub use partition::{REGION, forged, partition};
