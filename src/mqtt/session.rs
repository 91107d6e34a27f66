//! The session: connects, says `online`, publishes what the outbox holds, and begins again when the connection breaks.
//!
//! ```text
//!            ┌────────────── backoff 0.5 s .. reconnect_max ◄──────────────┐
//!            ▼                                                             │ broken
//!  connect (will: offline) ─► retained states ─► outbox, oldest first ─► serve ─► end: stopped, goodbye
//! ```
//!
//! Matching acknowledgements: messages go to the client in one order and come back as [`Event::Sent`] in the same order, with the packet
//! number that the acknowledgement will carry. Nothing of this outlives the connection.

use super::flight::{Flight, Sent, gone};
use super::link::{Event, Link, LinkError, MqttConfig, Outbound};
use super::shared::SharedOutbox;
use crate::events::{DevicePhase, DeviceState, Topics, to_json};
use jiff::Timestamp;
use rand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

/// Messages of the outbox that are on their way at one time, and their bytes.
const WINDOW: usize = 16;
const WINDOW_BYTES: usize = 4 << 20;
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// How long the last words may take once the outbox is done with.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the agent tells the session.
#[derive(Debug)]
enum Order {
    /// The value of a retained topic is this from now on.
    Retain { topic: String, payload: Vec<u8> },
    /// Published if connected, else forgotten.
    Volatile { topic: String, payload: Vec<u8> },
    /// Ends once the outbox is empty.
    Drain,
    /// Ends once the outbox is empty, at the latest then.
    Stop(Instant),
}

/// How the session is doing, for health and logs.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub connected: bool,
    pub connects: u64,
    /// Why it is not connected.
    pub trouble: Option<String>,
}

/// The agent's side of the session; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    status: watch::Receiver<Status>,
}

impl Handle {
    pub fn retain(&self, topic: String, payload: Vec<u8>) {
        let _ = self.orders.send(Order::Retain { topic, payload });
    }

    pub fn volatile(&self, topic: String, payload: Vec<u8>) {
        let _ = self.orders.send(Order::Volatile { topic, payload });
    }

    /// Ends the session when everything is acknowledged, however long it takes.
    pub fn drain(&self) {
        let _ = self.orders.send(Order::Drain);
    }

    /// Ends the session when everything is acknowledged, or after `deadline`; the rest stays in the outbox.
    pub fn stop(&self, deadline: Duration) {
        let _ = self.orders.send(Order::Stop(Instant::now() + deadline));
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    No,
    Drain { since: Instant },
    Stop { at: Instant },
}

pub struct Session {
    config: MqttConfig,
    topics: Topics,
    run: Uuid,
    outbox: SharedOutbox,
    orders: mpsc::UnboundedReceiver<Order>,
    status: watch::Sender<Status>,
    /// Latest value of every retained topic but the device's own.
    retained: BTreeMap<String, Vec<u8>>,
    ending: Ending,
}

impl Session {
    pub fn new(config: MqttConfig, topics: Topics, run: Uuid, outbox: SharedOutbox) -> (Session, Handle) {
        let (order_sender, orders) = mpsc::unbounded_channel();
        let (status, status_receiver) = watch::channel(Status::default());
        let session =
            Session { config, topics, run, outbox, orders, status, retained: BTreeMap::new(), ending: Ending::No };
        (session, Handle { orders: order_sender, status: status_receiver })
    }

    /// Runs until [`Handle::drain`] or [`Handle::stop`] is done with.
    pub async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        let mut last_trouble = String::new();
        loop {
            let connects = self.status.borrow().connects;
            let why = match self.connect_and_serve().await {
                Ok(()) => return,
                Err(why) => why.to_string(),
            };
            if self.status.borrow().connects > connects {
                backoff = FIRST_BACKOFF;
                last_trouble.clear();
            }
            if why != last_trouble {
                match self.ending {
                    Ending::Stop { .. } => tracing::warn!("{why}; events wait in the outbox"),
                    _ => tracing::warn!("{why}; events wait in the outbox, and the connection is tried again"),
                }
                last_trouble.clone_from(&why);
            }
            self.status.send_modify(|s| {
                s.connected = false;
                s.trouble = Some(why);
            });
            let jitter = rand::rng().random_range(0.8..1.2);
            if self.wait(Instant::now() + backoff.mul_f64(jitter)).await {
                return;
            }
            backoff = (backoff * 2).min(self.config.reconnect_max.max(FIRST_BACKOFF));
        }
    }

    /// Between two connections: takes orders; true when it is time to end without one.
    async fn wait(&mut self, until: Instant) -> bool {
        loop {
            let end = match self.ending {
                Ending::No => None,
                // Nothing waits for the broker, only our last words do: they are not worth more than this.
                Ending::Drain { since } => self.outbox.lock().is_empty().then_some(since + LAST_WORDS),
                Ending::Stop { at } => Some(at),
            };
            if end.is_some_and(|at| Instant::now() >= at) {
                return true;
            }
            tokio::select! {
                () = sleep_until(end.map_or(until, |at| at.min(until))) => {
                    if Instant::now() >= until {
                        return false;
                    }
                }
                Some(order) = self.orders.recv() => self.note(order, None).unwrap_or(()),
            }
        }
    }

    /// Takes an order; on a connection the message goes out at once.
    fn note(&mut self, order: Order, flight: Option<&mut Flight>) -> Result<(), LinkError> {
        match order {
            Order::Retain { topic, payload } => {
                self.retained.insert(topic.clone(), payload.clone());
                flight.map_or(Ok(()), |f| f.hand_over(Sent::State, retained(topic, payload)))
            }
            Order::Volatile { topic, payload } => flight.filter(|f| !f.congested()).map_or(Ok(()), |f| {
                let content_type = "application/json".into();
                f.hand_over(Sent::Volatile, Outbound { topic, payload, content_type, ..Outbound::default() })
            }),
            Order::Drain => {
                if matches!(self.ending, Ending::No) {
                    self.ending = Ending::Drain { since: Instant::now() };
                }
                Ok(())
            }
            Order::Stop(at) => {
                self.ending = Ending::Stop { at };
                Ok(())
            }
        }
    }

    fn device_state(&self, state: DevicePhase) -> Vec<u8> {
        let version = env!("CARGO_PKG_VERSION").into();
        to_json(&DeviceState { state, version, since: Timestamp::now(), run: self.run })
    }

    /// Ok when the session has ended as it should.
    async fn connect_and_serve(&mut self) -> Result<(), LinkError> {
        let will = (self.topics.state(), self.device_state(DevicePhase::Offline));
        let (link, mut events) = Link::open(&self.config, Some(will))?;
        let broker_limit = loop {
            let ending_at = self.ending_at();
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Connected { max_packet_bytes }) => break max_packet_bytes,
                    Some(Event::Down(why)) => return Err(why),
                    Some(_) => {}
                    None => return Err(gone("the client ended")),
                },
                Some(order) = self.orders.recv() => self.note(order, None)?,
                () = until(ending_at) => {
                    tracing::warn!("there was no connection before the end; events wait in the outbox");
                    return Ok(());
                }
            }
        };
        let max_packet_bytes =
            broker_limit.map_or(self.config.max_packet_bytes, |b| b.min(self.config.max_packet_bytes)) as usize;
        let mut flight = Flight::new(link, max_packet_bytes);
        self.status.send_modify(|s| *s = Status { connected: true, connects: s.connects + 1, trouble: None });
        tracing::info!("connected to the broker {}:{}", self.config.host, self.config.port);

        flight.hand_over(Sent::State, retained(self.topics.state(), self.device_state(DevicePhase::Online)))?;
        for (topic, payload) in &self.retained {
            flight.hand_over(Sent::State, retained(topic.clone(), payload.clone()))?;
        }
        // A broker may answer pings and acknowledge nothing, for ever: the client does not see that.
        let patience = self.config.keep_alive * 3;
        let mut silent_since = None;
        loop {
            self.feed(&mut flight)?;
            if self.finished(&flight) {
                return self.last_words(&mut flight, &mut events).await;
            }
            let ending_at = self.ending_at();
            if flight.unacknowledged() == 0 && flight.states == 0 {
                silent_since = None;
            } else {
                silent_since.get_or_insert_with(Instant::now);
            }
            tokio::select! {
                event = events.recv() => {
                    let mut acked = Vec::new();
                    let mut next = Some(event.ok_or_else(|| gone("the client ended"))?);
                    let mut result = Ok(());
                    while let Some(event) = next {
                        if matches!(event, Event::Acked(..)) {
                            silent_since = None;
                        }
                        result = flight.take(event, &mut acked);
                        next = if result.is_ok() { events.try_recv().ok() } else { None };
                    }
                    self.delete(&mut flight, &acked);
                    result?;
                }
                Some(order) = self.orders.recv() => self.note(order, Some(&mut flight))?,
                () = until(silent_since.map(|at| at + patience)) => {
                    let seconds = patience.as_secs();
                    return Err(gone(&format!("the broker has acknowledged nothing for {seconds} s")));
                }
                () = self.outbox.arrived() => {}
                () = until(ending_at) => {}
            }
        }
    }

    fn ending_at(&self) -> Option<Instant> {
        match self.ending {
            Ending::Stop { at } => Some(at),
            Ending::No | Ending::Drain { .. } => None,
        }
    }

    /// Everything is acknowledged, or time is up.
    fn finished(&self, flight: &Flight) -> bool {
        let delivered = || flight.unacknowledged() == 0 && (flight.refused > 0 || self.outbox.lock().is_empty());
        match self.ending {
            Ending::No => false,
            Ending::Drain { .. } => delivered(),
            Ending::Stop { at } => Instant::now() >= at || delivered(),
        }
    }

    /// Fills the window from the outbox.
    fn feed(&mut self, flight: &mut Flight) -> Result<(), LinkError> {
        while flight.unacknowledged() < WINDOW {
            let room = WINDOW - flight.unacknowledged();
            let pending = self.outbox.lock().pending(|id| flight.held.contains(&id), room, WINDOW_BYTES);
            let pending = pending.unwrap_or_else(|e| {
                tracing::warn!("{e}");
                Vec::new()
            });
            if pending.is_empty() {
                return Ok(());
            }
            for (id, message) in pending {
                let bytes = message.payload.len() + message.topic.len() + message.content_type.len() + 256;
                if bytes > flight.max_packet_bytes {
                    let limit = flight.max_packet_bytes;
                    tracing::warn!(
                        "a message of {bytes} bytes for {} was dropped: the broker takes {limit}",
                        message.topic
                    );
                    if let Err(e) = self.outbox.lock().drop_oversize(id) {
                        tracing::warn!("{e}");
                        flight.held.insert(id);
                        flight.refused += 1;
                    }
                    continue;
                }
                flight.held.insert(id);
                flight.hand_over(
                    Sent::Outbox(id),
                    Outbound {
                        topic: message.topic,
                        payload: message.payload,
                        at_least_once: true,
                        retain: false,
                        content_type: message.content_type,
                        event_id: Some(message.event_id),
                    },
                )?;
            }
        }
        Ok(())
    }

    fn delete(&self, flight: &mut Flight, acked: &[i64]) {
        if acked.is_empty() {
            return;
        }
        let stuck = flight.undeleted.len();
        flight.undeleted.extend(acked);
        match self.outbox.lock().acked(&flight.undeleted) {
            Ok(()) => {
                flight.refused -= stuck;
                for id in flight.undeleted.drain(..) {
                    flight.held.remove(&id);
                }
            }
            // They stay held on this connection, so that a disk that refuses does not make us send in a circle.
            Err(e) => {
                flight.refused += acked.len();
                if stuck == 0 {
                    tracing::warn!("{e}; what was delivered meanwhile may be delivered again after a restart");
                }
            }
        }
    }

    /// `stopped`, and the goodbye that makes the broker forget the will.
    async fn last_words(
        &mut self,
        flight: &mut Flight,
        events: &mut mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), LinkError> {
        flight.hand_over(Sent::State, retained(self.topics.state(), self.device_state(DevicePhase::Stopped)))?;
        let mut acked = Vec::new();
        let words = async {
            while flight.states > 0 {
                match events.recv().await {
                    Some(event) => flight.take(event, &mut acked)?,
                    None => break,
                }
            }
            Ok::<(), LinkError>(())
        };
        let _ = timeout(LAST_WORDS, words).await;
        self.delete(flight, &acked);
        flight.link.disconnect();
        let goodbye = async { while !matches!(events.recv().await, None | Some(Event::Down(_))) {} };
        let _ = timeout(Duration::from_millis(500), goodbye).await;
        Ok(())
    }
}

fn retained(topic: String, payload: Vec<u8>) -> Outbound {
    Outbound {
        topic,
        payload,
        at_least_once: true,
        retain: true,
        content_type: "application/json".into(),
        event_id: None,
    }
}

/// Never, if there is no such time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
