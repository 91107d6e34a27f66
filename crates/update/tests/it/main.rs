//! The update's client against repositories of every kind, on disks and servers of every kind.

mod attacks;
mod conformance;
mod forge;
mod https;
mod peer;
mod power;
mod publisher;
mod server;
mod transport;
