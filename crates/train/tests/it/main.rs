//! Integration tests, one file a promise, one binary to link.

mod backbones;
mod datasets;
mod metrics;
mod report;
mod trainer;
