//! **ckaad-edge**: visual inspection that runs on the line.
//!
//! `ckaad-train` turns a folder of images into one file, the *bundle*; `ckaad-agent` runs that file beside a camera and
//! publishes what it finds over MQTT. The promise between the two: *what the trainer measured is what the device does*.
//! The trainer's numbers are computed through the exported bundle, with the modules that the agent runs.
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
//! Floors, ground first. A module uses only floors below its own; `tests/it/floors.rs` holds this.
//!
//! | floor | module | what it answers for |
//! |---|---|---|
//! | 1 | [`imaging`] | pixels: [`imaging::Frame`], decoding with bounds, resize and letterbox, colour maps, heatmaps |
//! | 1 | [`bundle`] | the one file between trainer and agent: manifest, digests, bounded reading, packing |
//! | 2 | [`engine`] | ONNX → runnable plan on tract, quantised parts on our own int8 kernels; u8 image in, anomaly map out |
//! | 2 | [`synthetic`] | the synthetic line: parts, textures, defects with masks |
//! | 3 | [`inspect`] | bundle + image → [`inspect::Verdict`]: smoothing, image score, calibration, regions |
//! | 4 | [`capture`] | `trait Source`: camera, directory, synthetic line |
//! | 4 | [`events`] | what subscribers see: schemas, topics, grouping of verdicts into events |
//! | 5 | [`mqtt`] | session and durable outbox |
//! | 6 | [`agent`] | config, wiring, shutdown, watchdog, doctor, demo |
//! | 6 | [`train`] | data sets, backbones, CKAAD, quantiser, ONNX export, metrics, report |
//!
//! `train` and `agent` never use each other; the features `agent` and `train` switch whole modules on and off.
// Allowed again in `engine::int8` alone, for its kernels and the threads that share their memory.
#![deny(unsafe_code)]

#[forbid(unsafe_code)]
pub mod bundle;
pub mod engine;
#[forbid(unsafe_code)]
pub mod imaging;
#[forbid(unsafe_code)]
pub mod inspect;
#[forbid(unsafe_code)]
pub mod synthetic;

#[cfg(feature = "agent")]
#[forbid(unsafe_code)]
pub mod agent;
#[cfg(feature = "agent")]
#[forbid(unsafe_code)]
pub mod capture;
#[cfg(feature = "agent")]
#[forbid(unsafe_code)]
pub mod events;
#[cfg(feature = "agent")]
#[forbid(unsafe_code)]
pub mod mqtt;

#[cfg(feature = "train")]
#[forbid(unsafe_code)]
pub mod train;
