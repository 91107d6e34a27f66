//! What is under way on one connection, and which acknowledgement belongs to what. Nothing of this outlives the connection.

use super::link::{Event, Link, LinkError, Outbound, REQUESTS};
use std::collections::{HashMap, HashSet, VecDeque};

/// What a packet on its way is.
#[derive(Debug)]
pub(super) enum Sent {
    /// A message of the outbox: its id there, and the bytes of its payload.
    Outbox {
        id: i64,
        bytes: usize,
    },
    State,
    BestEffort,
}

/// The state of one connection.
pub(super) struct Flight {
    pub(super) link: Link,
    pub(super) max_packet_bytes: usize,
    /// Handed over, number not known yet; in order.
    handed: VecDeque<Sent>,
    by_number: HashMap<u16, Sent>,
    /// Of the outbox, and not to be sent again on this connection: on the way, refused, or not deleted yet.
    pub(super) held: HashSet<i64>,
    on_the_way: usize,
    bytes_on_the_way: usize,
    /// The broker would not take them on this connection.
    pub(super) refused: usize,
    /// Acknowledged; nobody has asked the disk to delete them yet, or it did not let us.
    pub(super) undeleted: Vec<i64>,
    /// The disk did not let us delete: tried again with the next that is acknowledged.
    pub(super) stuck: bool,
    pub(super) states: usize,
}

impl Flight {
    pub(super) fn new(link: Link, max_packet_bytes: usize) -> Flight {
        Flight {
            link,
            max_packet_bytes,
            handed: VecDeque::new(),
            by_number: HashMap::new(),
            held: HashSet::new(),
            on_the_way: 0,
            bytes_on_the_way: 0,
            refused: 0,
            undeleted: Vec::new(),
            stuck: false,
            states: 0,
        }
    }

    /// The broker or the disk refuses something on this connection.
    pub(super) fn given_up(&self) -> bool {
        self.refused > 0 || self.stuck
    }

    /// Messages of the outbox that the broker has yet to acknowledge.
    pub(super) fn unacknowledged(&self) -> usize {
        self.on_the_way
    }

    /// Bytes of their payloads.
    pub(super) fn unacknowledged_bytes(&self) -> usize {
        self.bytes_on_the_way
    }

    /// True while the client is far behind: what may be lost is better not handed over.
    pub(super) fn congested(&self) -> bool {
        self.handed.len() > REQUESTS / 2
    }

    pub(super) fn hand_over(&mut self, what: Sent, message: Outbound) -> Result<(), LinkError> {
        match what {
            Sent::Outbox { bytes, .. } => {
                self.on_the_way += 1;
                self.bytes_on_the_way += bytes;
            }
            Sent::State => self.states += 1,
            Sent::BestEffort => {}
        }
        self.handed.push_back(what);
        if self.link.publish(message) { Ok(()) } else { Err(gone("the client takes no more messages")) }
    }

    /// Books one event of the connection; what the broker took is to be deleted from the outbox.
    ///
    /// # Errors
    /// The connection is down.
    pub(super) fn take(&mut self, event: Event) -> Result<(), LinkError> {
        match event {
            Event::Sent(number) => {
                if let Some(what) = self.handed.pop_front().filter(|_| number != 0) {
                    self.by_number.insert(number, what);
                }
            }
            Event::Acked(number, refused) => match (self.by_number.remove(&number), refused) {
                (Some(Sent::Outbox { id, bytes }), refused) => {
                    self.on_the_way -= 1;
                    self.bytes_on_the_way -= bytes;
                    match refused {
                        None => {
                            self.undeleted.push(id);
                            self.stuck = false;
                        }
                        Some(reason) => {
                            self.refused += 1;
                            if self.refused == 1 {
                                tracing::warn!(
                                    "the broker refused an event ({reason}); it and any further one stay in the outbox until the next connection"
                                );
                            }
                        }
                    }
                }
                (Some(Sent::State), refused) => {
                    self.states -= 1;
                    if let Some(reason) = refused {
                        tracing::warn!("the broker refused a state ({reason}); may this user publish at the prefix?");
                    }
                }
                (Some(Sent::BestEffort) | None, _) => {}
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
