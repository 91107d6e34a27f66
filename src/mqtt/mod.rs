//! The way to the broker: a durable outbox and one session.
//!
//! Responsible for: keeping what must not be lost until the broker has acknowledged it, connecting again and again, the will and the
//! retained values. Not responsible for: what is published (`events`).
//!
//! ```text
//!  inspection threads ──put──► Outbox (SQLite) ──pending──► Session ──publish──► broker
//!                                     ▲                        │
//!                                     └────── delete ◄─────────┴──── PubAck
//! ```
//!
//! | what | how | survives the broker's absence | survives our end |
//! |---|---|---|---|
//! | anomaly, heatmap | outbox, QoS 1 | yes | yes |
//! | device and camera state | latest value, retained, QoS 1; sent again at every connect | the latest | said anew at the start; `offline` by the will |
//! | health, result | QoS 0 | no | no |

mod flight;
mod link;
mod outbox;
mod session;
mod shared;
mod store;
mod subscriber;

pub use link::{Incoming, LinkError, MqttConfig, Protocol, TlsFiles, probe};
pub use outbox::{Limits, Message, Outbox, OutboxError, Rank, Stored};
pub use session::{Handle, Session, Status};
pub use shared::SharedOutbox;
pub use subscriber::Subscriber;
