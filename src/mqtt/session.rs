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
use super::handle::{Request, SessionHandle};
use super::link::{Event, Incoming, Link, LinkError, MqttConfig, Outbound};
use super::message::OutboxError;
use super::store::{Batch, StoreHandle};
use crate::events::{DevicePhase, DeviceState, Topics, to_json};
use jiff::Timestamp;
use rand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

/// Messages of the outbox that are on their way at one time, and the bytes of their payloads, which the last of them may exceed.
const WINDOW: usize = 16;
const WINDOW_BYTES: usize = 4 << 20;
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// How long the last words may take once the outbox is done with.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
enum Ending {
    No,
    Drain { since: Instant },
    Stop { at: Instant },
}

pub struct Session {
    config: MqttConfig,
    topics: Topics,
    incarnation: Uuid,
    store: StoreHandle,
    requests: mpsc::UnboundedReceiver<Request>,
    /// What is subscribed to, and where that goes.
    commands: Option<(String, mpsc::Sender<Incoming>)>,
    /// Connections so far.
    connects: u64,
    /// Latest value of every retained topic but the device's own.
    retained: BTreeMap<String, Vec<u8>>,
    ending: Ending,
}

impl Session {
    pub fn new(config: MqttConfig, topics: Topics, incarnation: Uuid, store: StoreHandle) -> (Session, SessionHandle) {
        let (handle, requests) = SessionHandle::new();
        let (retained, ending) = (BTreeMap::new(), Ending::No);
        let session =
            Session { config, topics, incarnation, store, requests, commands: None, connects: 0, retained, ending };
        (session, handle)
    }

    /// Subscribes to `filter` at every connection. What comes goes to `receiver`, as long as that has room.
    pub fn subscribe(&mut self, filter: String, receiver: mpsc::Sender<Incoming>) {
        self.commands = Some((filter, receiver));
    }

    /// Runs until [`SessionHandle::drain`] or [`SessionHandle::stop`] is done with. It may be called again after it panicked: nothing but what is
    /// in the outbox, and the latest value of every retained topic, outlives a connection.
    pub async fn run(&mut self) {
        let mut backoff = FIRST_BACKOFF;
        let mut last_trouble = String::new();
        loop {
            let connects = self.connects;
            let why = match self.connect_and_serve().await {
                Ok(()) => return,
                Err(why) => why.to_string(),
            };
            if self.connects > connects {
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
            let jitter = rand::rng().random_range(0.8..1.2);
            if self.wait(Instant::now() + backoff.mul_f64(jitter)).await {
                return;
            }
            backoff = (backoff * 2).min(self.config.reconnect_max.max(FIRST_BACKOFF));
        }
    }

    /// Between two connections: takes requests; true when it is time to end without one.
    async fn wait(&mut self, until: Instant) -> bool {
        loop {
            let end = match self.ending {
                Ending::No => None,
                // Nothing waits for the broker, only our last words do: they are not worth more than this.
                Ending::Drain { since } => (self.store.waiting() == 0).then_some(since + LAST_WORDS),
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
                Some(request) = self.requests.recv() => {
                    // Without a connection there is none that could break.
                    let _ = self.note(request, None);
                }
            }
        }
    }

    /// Takes a request; on a connection the message goes out at once.
    fn note(&mut self, request: Request, flight: Option<&mut Flight>) -> Result<(), LinkError> {
        match request {
            Request::Retain { topic, payload } => {
                self.retained.insert(topic.clone(), payload.clone());
                flight.map_or(Ok(()), |f| f.hand_over(Sent::State, retained(topic, payload)))
            }
            Request::BestEffort { topic, payload } => flight.filter(|f| !f.congested()).map_or(Ok(()), |f| {
                let content_type = "application/json".into();
                f.hand_over(Sent::BestEffort, Outbound { topic, payload, content_type, ..Outbound::default() })
            }),
            Request::Reply { topic, payload, correlation_data } => flight.map_or(Ok(()), |f| {
                let content_type = "application/json".into();
                let message = Outbound {
                    topic,
                    payload,
                    content_type,
                    correlation_data,
                    at_least_once: true,
                    ..Outbound::default()
                };
                f.hand_over(Sent::State, message)
            }),
            Request::Drain => {
                if matches!(self.ending, Ending::No) {
                    self.ending = Ending::Drain { since: Instant::now() };
                }
                Ok(())
            }
            Request::Stop(at) => {
                self.ending = Ending::Stop { at };
                Ok(())
            }
        }
    }

    fn device_state(&self, state: DevicePhase) -> Vec<u8> {
        let version = env!("CARGO_PKG_VERSION").into();
        to_json(&DeviceState { state, version, since: Timestamp::now(), run: self.incarnation })
    }

    /// Ok when the session has ended as it should.
    async fn connect_and_serve(&mut self) -> Result<(), LinkError> {
        let will = (self.topics.state(), self.device_state(DevicePhase::Offline));
        let config = self.config.clone();
        // It reads the password and the certificates from the disk.
        let opened = tokio::task::spawn_blocking(move || Link::open(&config, Some(will))).await;
        let (link, mut events) = opened.map_err(|_| gone("the client could not be started"))??;
        let broker_limit = loop {
            let ending_at = self.ending_at();
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Connected { max_packet_bytes }) => break max_packet_bytes,
                    Some(Event::Down(why)) => return Err(why),
                    Some(_) => {}
                    None => return Err(gone("the client ended")),
                },
                Some(request) = self.requests.recv() => self.note(request, None)?,
                () = until(ending_at) => {
                    tracing::warn!("there was no connection before the end; events wait in the outbox");
                    return Ok(());
                }
            }
        };
        let max_packet_bytes =
            broker_limit.map_or(self.config.max_packet_bytes, |b| b.min(self.config.max_packet_bytes)) as usize;
        let mut flight = Flight::new(link, max_packet_bytes);
        self.connects += 1;
        tracing::info!("connected to the broker {}:{}", self.config.host, self.config.port);

        flight.hand_over(Sent::State, retained(self.topics.state(), self.device_state(DevicePhase::Online)))?;
        for (topic, payload) in &self.retained {
            flight.hand_over(Sent::State, retained(topic.clone(), payload.clone()))?;
        }
        if let Some((filter, _)) = &self.commands
            && !flight.link.subscribe(filter)
        {
            return Err(gone("the client takes no subscription"));
        }
        self.serve(flight, events).await
    }

    /// Publishes what the outbox holds until it is time to end, or the connection breaks.
    async fn serve(&mut self, mut flight: Flight, mut events: mpsc::UnboundedReceiver<Event>) -> Result<(), LinkError> {
        fail::fail_point!("session", |_| Ok(()));
        // A broker may answer pings and acknowledge nothing, for ever: the client does not see that.
        let patience = self.config.keep_alive * 3;
        let mut silent_since = None;
        // The disk may take its time for these two; the session goes on meanwhile.
        let mut fetching: Option<oneshot::Receiver<Result<Batch, OutboxError>>> = None;
        let mut deleting: Option<Deletion> = None;
        // False from when the outbox is asked for what is not on its way yet until there may be something more: what comes meanwhile may or may not be in the
        // answer.
        let mut more = true;
        // As [`StoreHandle::settled`] when the outbox was asked, and when it was asked and had nothing.
        let (mut asked, mut emptied) = (None, None);
        loop {
            let room = WINDOW.saturating_sub(flight.unacknowledged());
            let bytes = WINDOW_BYTES.saturating_sub(flight.unacknowledged_bytes());
            if more && fetching.is_none() && room > 0 && bytes > 0 {
                (more, asked, emptied) = (false, self.store.settled(), None);
                fetching = Some(self.store.pending(flight.held.clone(), room, bytes));
            }
            if deleting.is_none() && !flight.undeleted.is_empty() && !flight.stuck {
                let ids = std::mem::take(&mut flight.undeleted);
                deleting = Some(Deletion { done: self.store.acked(ids.clone()), ids });
            }
            let idle = fetching.is_none() && deleting.is_none();
            let settled = self.store.settled();
            let asked_for_all = settled.is_some() && emptied == settled;
            if self.finished(&flight, idle, asked_for_all) {
                return self.last_words(&mut flight, &mut events).await;
            }
            // What is refused is not waited for, but what was put last may not have been asked for yet.
            if idle && !more && flight.given_up() && settled.is_some() && !asked_for_all {
                more = true;
                continue;
            }
            let ending_at = self.ending_at();
            if flight.unacknowledged() == 0 && flight.states == 0 {
                silent_since = None;
            } else {
                silent_since.get_or_insert_with(Instant::now);
            }
            tokio::select! {
                event = events.recv() => {
                    let event = event.ok_or_else(|| gone("the client ended"))?;
                    if self.take_all(event, &mut events, &mut flight)? {
                        silent_since = None;
                    }
                }
                batch = answer(&mut fetching) => {
                    let any = self.publish(batch, &mut flight)?;
                    emptied = asked.filter(|_| !any);
                    more |= any;
                }
                result = deleted(&mut deleting) => {
                    self.note_deletion(deleting.take(), result, &mut flight);
                    more = true;
                }
                Some(request) = self.requests.recv() => self.note(request, Some(&mut flight))?,
                () = until(silent_since.map(|at| at + patience)) => {
                    let seconds = patience.as_secs();
                    return Err(gone(&format!("the broker has acknowledged nothing for {seconds} s")));
                }
                () = self.store.arrived() => more = true,
                () = until(ending_at) => {}
            }
        }
    }

    /// Books `event` and all that came with it; true when the broker acknowledged something.
    fn take_all(
        &self,
        event: Event,
        events: &mut mpsc::UnboundedReceiver<Event>,
        flight: &mut Flight,
    ) -> Result<bool, LinkError> {
        let (mut next, mut acknowledged) = (Some(event), false);
        while let Some(event) = next {
            acknowledged |= matches!(event, Event::Acked(..));
            match (event, &self.commands) {
                (Event::Incoming(message), Some((_, receiver))) => {
                    if let Err(e) = receiver.try_send(message) {
                        tracing::warn!("a command was dropped: {e}");
                    }
                }
                (event, _) => flight.take(event)?,
            }
            next = events.try_recv().ok();
        }
        Ok(acknowledged)
    }

    fn ending_at(&self) -> Option<Instant> {
        match self.ending {
            Ending::Stop { at } => Some(at),
            Ending::No | Ending::Drain { .. } => None,
        }
    }

    /// Everything is acknowledged, or time is up. `idle`: nothing is asked of the disk. `asked_for_all`: nothing was put since it had no more.
    fn finished(&self, flight: &Flight, idle: bool, asked_for_all: bool) -> bool {
        let delivered = || {
            // What the broker or the disk refuses on this connection is not waited for.
            let given_up = flight.given_up() && asked_for_all;
            idle && flight.unacknowledged() == 0 && (given_up || self.store.waiting() == 0)
        };
        match self.ending {
            Ending::No => false,
            Ending::Drain { .. } => delivered(),
            Ending::Stop { at } => Instant::now() >= at || delivered(),
        }
    }

    /// Hands what the outbox gave to the client; false when there was nothing.
    fn publish(&self, batch: Result<Batch, OutboxError>, flight: &mut Flight) -> Result<bool, LinkError> {
        let batch = batch.unwrap_or_else(|e| {
            tracing::warn!("{e}");
            Batch::new()
        });
        let any = !batch.is_empty();
        for (id, message) in batch {
            let bytes = message.payload.len() + message.topic.len() + message.content_type.len() + 256;
            flight.held.insert(id);
            if bytes > flight.max_packet_bytes {
                let limit = flight.max_packet_bytes;
                tracing::warn!(
                    "a message of {bytes} bytes for {} was dropped: the broker takes {limit}",
                    message.topic
                );
                self.store.count_oversize(1);
                flight.undeleted.push(id);
                continue;
            }
            let outbound = Outbound {
                topic: message.topic,
                payload: message.payload,
                at_least_once: true,
                retain: false,
                content_type: message.content_type,
                event_id: Some(message.event_id),
                correlation_data: None,
            };
            flight.hand_over(Sent::Outbox { id, bytes: outbound.payload.len() }, outbound)?;
        }
        Ok(any)
    }

    fn note_deletion(&self, deletion: Option<Deletion>, result: Result<(), OutboxError>, flight: &mut Flight) {
        let Some(Deletion { ids, .. }) = deletion else { return };
        match result {
            Ok(()) => flight.held.retain(|id| !ids.contains(id)),
            // They stay held on this connection, so that a disk that refuses does not make us send in a circle; they are tried again
            // with the next that is acknowledged.
            Err(e) => {
                flight.undeleted.extend(ids);
                flight.stuck = true;
                tracing::warn!("{e}; what was delivered meanwhile may be delivered again after a restart");
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
        let words = async {
            while flight.states > 0 {
                match events.recv().await {
                    Some(event) => flight.take(event)?,
                    None => break,
                }
            }
            Ok::<(), LinkError>(())
        };
        let _ = timeout(LAST_WORDS, words).await;
        if !flight.undeleted.is_empty() {
            // Nobody waits for the answer: the outbox closes behind it.
            drop(self.store.acked(std::mem::take(&mut flight.undeleted)));
        }
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
        ..Outbound::default()
    }
}

/// Messages that the broker has, on their way out of the outbox.
struct Deletion {
    ids: Vec<i64>,
    done: oneshot::Receiver<Result<(), OutboxError>>,
}

/// The messages that were asked for, once they are there; never, if none were.
async fn answer(fetching: &mut Option<oneshot::Receiver<Result<Batch, OutboxError>>>) -> Result<Batch, OutboxError> {
    match fetching {
        Some(receiver) => {
            let batch = receiver.await;
            *fetching = None;
            // The outbox's thread has ended: the agent ends, too.
            batch.unwrap_or_else(|_| Ok(Batch::new()))
        }
        None => std::future::pending().await,
    }
}

/// What became of a deletion; never, if there is none.
async fn deleted(deleting: &mut Option<Deletion>) -> Result<(), OutboxError> {
    match deleting {
        Some(Deletion { done, .. }) => done.await.unwrap_or(Ok(())),
        None => std::future::pending().await,
    }
}

/// Never, if there is no such time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
