//! **ckaad-edge**: visual inspection that runs on the line.
//!
//! `ckaad-train` turns a folder of images into one file, the *bundle*; `ckaad-agent` runs that file beside a camera and
//! publishes what it finds over MQTT. The promise between the two: *what the trainer measured is what the device does*.
//! The trainer's numbers are computed through the exported bundle, with the crates that the agent runs.
//!
//! ```text
//! camera ─► capture ─► newest frame ─► inspect (imaging ► engine ► score) ─► events ─► outbox (disk) ─► mqtt ─► broker
//!                                         ▲
//!             data set ─► train ─► export ─► bundle
//! ```
//!
//! One direction, no back and forth: a stage knows the type that it is given and the type that it hands on.
//!
//! # Layout
//!
//! One workspace. This package is the agent; what it shares with the trainer lies in crates of its own, ground first:
//!
//! | crate | what it answers for |
//! |---|---|
//! | `crates/int8` | int8 and float operators on the CPU, and every `unsafe` of the project; the standard library only |
//! | `crates/bundle` | the one file between trainer and agent: manifest, digests, bounded reading, packing |
//! | `crates/inspect` | pixels, the engine on tract, and the way from a bundle and an image to a verdict; the synthetic line |
//! | `crates/update` | models over the air: what a publisher signs, what a device trusts, fetches and keeps |
//! | `crates/train` | the trainer, library and program; burn only here |
//! | `crates/testing` | what the tests of several crates need |
//!
//! Inside a crate there are floors. A module uses only floors below its own, and no file is in a circle of imports; `tests/it/floors.rs` holds
//! both, for every crate. Those of the agent:
//!
//! | floor | module | what it answers for |
//! |---|---|---|
//! | 1 | [`capture`] | `trait Source`: camera, directory, synthetic line |
//! | 1 | [`events`] | what subscribers see: schemas, topics, grouping of verdicts into events, and of views into parts |
//! | 2 | [`mqtt`] | session and durable outbox |
//! | 2 | [`judge`] | models in force, what computes them (the own engine, or ONNX Runtime on a GPU), the threads of all networks and whose turn it is, parts that wait for their last view, taps for who only looks |
//! | 3 | [`ota`] | models that change while the line runs: the task that fetches another one, and its trial |
//! | 4 | [`agent`] | config, wiring, commands, shutdown, watchdog, doctor, demo |
#![forbid(unsafe_code)]

pub mod agent;
pub mod capture;
pub mod events;
pub mod judge;
pub mod mqtt;
pub mod ota;
