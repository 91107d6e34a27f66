//! Fused int8 and float operators for convolutional networks, with nothing but the standard library below them.
//!
//! A [`region::Region`] is a piece of a network in a small language of its own: quantised convolutions, additions, pooling, and the float
//! operators before, between and behind them. [`program::Program`] is a region made ready for one CPU: memory laid out, weights packed,
//! work cut. It reads bytes, multiplies, requantises in registers and writes bytes.
//!
//! ```text
//! Region ─memory, pack, cut─► Program ─run, steps, kernels─► bytes, maps
//!                                        pool
//! ```
//!
//! `unsafe` is in `kernels` (instruction sets), `memory`, `run`, `steps` and `rows` (threads write parts of one block of memory) and `pool`
//! (threads run a borrowed function), and nowhere else.

#[forbid(unsafe_code)]
mod cut;
pub mod kernels;
mod memory;
#[forbid(unsafe_code)]
pub mod pack;
pub mod pool;
#[forbid(unsafe_code)]
pub mod program;
#[forbid(unsafe_code)]
pub mod region;
mod rows;
pub mod run;
mod steps;

pub use kernels::{Isa, peak};
