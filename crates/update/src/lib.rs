//! Models over the air: what a publisher signs, and what a device trusts, fetches and keeps.
//!
//! ```text
//! publish: keys ─► metadata, targets (static files) ─► any web server ─► remote ─► trust ─► offers
//!                                                                          │                  │ for this device?
//!                                                                          └──► download ◄────┘
//!                                                                                  └─► slots: staged ─► trial ─► committed
//! ```
//!
//! Not here: which bundle judges at the moment, what a trial looks at, and who asks for updates (the agent's `ota`).
//!
//! | floor | module | what it answers for |
//! |---|---|---|
//! | 1 | [`offer`] | what a target says of itself, and whether it is for this device |
//! | 1 | [`clock`] | what time it is where the system's clock may be wrong |
//! | 1 | [`disk`] | the few things that are done to a disk, each whole or not at all |
//! | 1 | [`remote`] | bounded fetching from a server or a folder |
//! | 2 | [`trust`] | what is believed of the repository, and remembered |
//! | 2 | [`download`] | a bundle, going on where it was broken off |
//! | 2 | [`slots`] | the bundles on the device, and the steps from one to the next |
//! | 3 | [`publish`] | keys and the repository, the publisher's side |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod disk;
pub mod download;
pub mod offer;
pub mod publish;
pub mod remote;
pub mod slots;
pub mod trust;
