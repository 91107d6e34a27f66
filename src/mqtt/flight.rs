//! What is under way on one connection, and which acknowledgement belongs to what. Nothing of this outlives the connection.

use super::link::{Event, Link, LinkError, Outbound, REQUESTS};
use std::collections::{HashMap, HashSet, VecDeque};

/// What a packet on its way is.
#[derive(Debug)]
pub(super) enum Sent {
    Outbox(i64),
    State,
    Volatile,
}

/// The state of one connection.
pub(super) struct Flight {
    pub(super) link: Link,
    pub(super) max_packet_bytes: usize,
    /// Handed over, number not known yet; in order.
    handed: VecDeque<Sent>,
    by_number: HashMap<u16, Sent>,
    /// Of the outbox: on the way, or refused on this connection.
    pub(super) held: HashSet<i64>,
    pub(super) refused: usize,
    /// Acknowledged, but the disk did not let us delete them: counted in `refused`, tried again with the next.
    pub(super) undeleted: Vec<i64>,
    pub(super) states: usize,
}

impl Flight {
    pub(super) fn new(link: Link, max_packet_bytes: usize) -> Flight {
        let (handed, by_number, held) = Default::default();
        Flight { link, max_packet_bytes, handed, by_number, held, refused: 0, undeleted: Vec::new(), states: 0 }
    }

    /// Messages of the outbox that the broker has yet to acknowledge.
    pub(super) fn unacknowledged(&self) -> usize {
        self.held.len() - self.refused
    }

    /// True while the client is far behind: what may be lost is better not handed over.
    pub(super) fn congested(&self) -> bool {
        self.handed.len() > REQUESTS / 2
    }

    pub(super) fn hand_over(&mut self, what: Sent, message: Outbound) -> Result<(), LinkError> {
        self.states += usize::from(matches!(what, Sent::State));
        self.handed.push_back(what);
        let taken = self.link.publish(message);
        taken.then_some(()).ok_or_else(|| gone("the client takes no more messages"))
    }

    /// Books one event of the connection; what the broker took is added to `acked`.
    ///
    /// # Errors
    /// The connection is down.
    pub(super) fn take(&mut self, event: Event, acked: &mut Vec<i64>) -> Result<(), LinkError> {
        match event {
            Event::Sent(number) => {
                if let Some(what) = self.handed.pop_front().filter(|_| number != 0) {
                    self.by_number.insert(number, what);
                }
            }
            Event::Acked(number, refused) => match (self.by_number.remove(&number), refused) {
                (Some(Sent::Outbox(id)), None) => acked.push(id),
                (Some(Sent::Outbox(_)), Some(reason)) => {
                    self.refused += 1;
                    if self.refused == 1 {
                        tracing::warn!(
                            "the broker refused an event ({reason}); it and any further one stay in the outbox until the next connection"
                        );
                    }
                }
                (Some(Sent::State), refused) => {
                    self.states -= 1;
                    if let Some(reason) = refused {
                        tracing::warn!("the broker refused a state ({reason}); may this user publish at the prefix?");
                    }
                }
                (Some(Sent::Volatile) | None, _) => {}
            },
            Event::Down(why) => return Err(why),
            Event::Connected { .. } | Event::Subscribed | Event::Incoming(_) => {}
        }
        Ok(())
    }
}

pub(super) fn gone(reason: &str) -> LinkError {
    LinkError::Lost(reason.into())
}
