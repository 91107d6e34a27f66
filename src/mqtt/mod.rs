//! The way to the broker: a durable outbox and one session.
//!
//! Responsible for: keeping what must not be lost until the broker has acknowledged it, connecting again and again, the will and the
//! retained values. Not responsible for: what is published (`events`).
//!
//! ```text
//!  inspection threads ──put──► store's thread: Outbox (SQLite) ──pending──► Session ──publish──► broker
//!                                     ▲                                        │
//!                                     └─────────────── acked ◄─────────────────┴──── PubAck
//! ```
//!
//! | what | how | survives the broker's absence | survives our end |
//! |---|---|---|---|
//! | anomaly, heatmap | outbox, QoS 1 | yes | yes |
//! | device and camera state | latest value, retained, QoS 1; sent again at every connect | the latest | said anew at the start; `offline` by the will |
//! | health, result | QoS 0 | no | no |
//! | commands to us | subscribed at every connect, QoS 1 | no: who sends them asks again | no |

mod database;
mod flight;
mod handle;
mod link;
mod message;
mod outbox;
#[cfg(test)]
mod scripted;
mod session;
mod store;
mod subscriber;

pub use handle::{ReplyTo, SessionHandle};
pub use link::{Incoming, LinkError, MqttConfig, Protocol, TlsFiles, probe};
pub use message::{Limits, Message, Note, OutboxError, Priority, Stored};
pub use outbox::Outbox;
pub use session::Session;
pub use store::{Receipt, Store, StoreHandle};
pub use subscriber::Subscriber;
