//! Fused int8 and float operators for convolutional networks, with nothing but the standard library below them.
//!
//! A [`region::Region`] is a piece of a network in a small language of its own: quantised convolutions, additions,
//! pooling, and the float operators before, between and behind them. [`program::Program`] is a region made ready for
//! one CPU: memory laid out, weights packed, work cut. It reads bytes, multiplies, requantises in registers and writes
//! bytes.
//!
//! ```text
//! Region ─memory, pack, cut─► Program ─run, ops, kernels─► bytes, maps
//!   ops                                  pool
//! ```
//!
//! Each file imports only from those before it in this order: shape, weights, isa, buffer, pack, kernels, cut,
//! operator, ops, region, memory, program, pool, run.
//!
//! A new operator is one file in `ops`: its parameters, an [`Operator`], a step, and its kernel. `unsafe` is
//! in `kernels` and `isa` (instruction sets), `buffer`, `operator`, `run`, `ops::convolution` and `ops::norm` (threads
//! write parts of one block of memory) and `pool` (threads run a borrowed function), and nowhere else.

#![warn(missing_docs)]

mod buffer;
#[forbid(unsafe_code)]
mod cut;
mod isa;
mod kernels;
#[forbid(unsafe_code)]
mod memory;
mod operator;
pub mod ops;
#[forbid(unsafe_code)]
mod pack;
pub mod pool;
#[forbid(unsafe_code)]
pub mod program;
#[forbid(unsafe_code)]
pub mod region;
pub mod run;
#[forbid(unsafe_code)]
pub mod shape;
#[cfg(test)]
mod tests;
#[forbid(unsafe_code)]
pub mod weights;

pub use isa::Isa;
pub use kernels::peak;
pub use operator::{Border, Operator, Reads};

/// The README's example is held to compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
