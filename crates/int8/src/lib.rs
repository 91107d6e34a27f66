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
//! # Layout
//!
//! Floors, ground first. A file uses only floors below its own; `tests/it/floors.rs` of the workspace holds this.
//!
//! | floor | module | what it answers for |
//! |---|---|---|
//! | 1 | `shape` | sizes of tensors, windows, the kinds of their elements |
//! | 2 | `weights` | parameters of operators, as a network gives them |
//! | 3 | `isa` | instruction sets, and which one this CPU has |
//! | 4 | `buffer` | memory that threads write parts of |
//! | 5 | `pack` | weights in the order in which kernels read them |
//! | 6 | `kernels` | the innermost loops, one set for each instruction set |
//! | 7 | `cut` | work in pieces for threads |
//! | 8 | `operator` | what an operator and its steps are |
//! | 9 | `ops` | the operators, a file each |
//! | 10 | `region` | a piece of a network as a list of operators |
//! | 11 | `memory` | which value lies where, and for how long |
//! | 12 | `program` | a region made ready for one CPU |
//! | 13 | `pool` | threads |
//! | 14 | `run` | a program over one input |
//!
//! A new operator is one file in `ops`: its parameters, an [`Operator`], a step, and its kernel. `unsafe` is
//! in `kernels` and `isa` (instruction sets), `buffer`, `operator`, `run`, `ops::convolution`, `ops::nearest` and `ops::norm` (threads
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
