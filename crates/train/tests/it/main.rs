//! Integration tests, one file a promise, one binary to link.

mod augment;
mod backbones;
mod console;
mod datasets;
mod doctor;
mod gpu;
mod methods;
mod metrics;
mod program;
mod report;
mod synth;
mod trainer;
