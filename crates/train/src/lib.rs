//! The trainer: data set → run → bundle → evaluation.
//!
//! # Layout
//!
//! Floors, ground first. A module uses only floors below its own; a test of the workspace holds this.
//!
//! | floor | module | what it answers for |
//! |---|---|---|
//! | 1 | [`graph`] | the network as it leaves the trainer: operators, shapes, channel statistics, terms and their weights |
//! | 1 | [`datasets`] | list images, read labels and masks |
//! | 1 | [`metrics`] | how good scores and maps are, exactly |
//! | 1 | [`device`] | `--device` → a burn device |
//! | 1 | [`progress`] | bars on a terminal, plain lines elsewhere |
//! | 1 | [`logistic`] | ridge logistic regression |
//! | 1 | [`boosting`] | boosted random forests |
//! | 1 | [`frame_time`] | how long a network takes for a frame |
//! | 2 | [`onnx`] | a graph as ONNX, in f32 and in int8 |
//! | 2 | [`augment`] | flip, turn, make anomalies, paint defects |
//! | 2 | [`whitening`] | coordinates in which normal images spread alike |
//! | 2 | [`views`] | networks over the images of a set, as many views of a part at once as they take |
//! | 3 | [`backbones`] | pre-trained extractors as graphs |
//! | 4 | [`features`] | frozen features, once an image, on disk |
//! | 5 | [`methods`] | what is trained: a list of methods, each with its networks, losses and steps |
//! | 6 | [`score`] | weigh the terms, choose how they become one score |
//! | 7 | [`quantise`] | int8 ranges, layers that stay in float |
//! | 8 | [`run`] | the folder of a run: folds, checkpoints |
//! | 9 | [`doctor`] | what is wrong with a data set, and what it can prove |
//! | 9 | [`config`] | the training config; only the two commands that follow it and the binary see the whole of it |
//! | 10 | [`fit`] | train once without each fold and once with all images |
//! | 10 | [`export`] | fold, quantise, calibrate, pack |
//! | 10 | [`evaluate`] | judge a test set *through the bundle* |
//! | 10 | [`publish`] | keys, and repositories that devices update themselves from |
//! | 11 | [`report`] | the page of an evaluation |
//!
//! burn appears in [`methods`] and [`device`]; [`fit`] seeds the device that it is given, [`config`] hands it on, and nothing else knows burn.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod augment;
pub mod backbones;
pub mod boosting;
pub mod config;
pub mod datasets;
pub mod device;
pub mod doctor;
pub mod evaluate;
pub mod export;
pub mod features;
pub mod fit;
pub mod frame_time;
pub mod graph;
pub mod logistic;
pub mod methods;
pub mod metrics;
pub mod onnx;
pub mod progress;
pub mod publish;
pub mod quantise;
pub mod report;
pub mod run;
pub mod score;
pub mod views;
pub mod whitening;
