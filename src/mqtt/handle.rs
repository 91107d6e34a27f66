//! The agent's side of the session. A session that has ended hears nothing any more, and nobody waits for an answer.

use super::link::Incoming;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the agent asks of the session.
#[derive(Debug)]
pub(super) enum Request {
    /// The value of a retained topic is this from now on.
    Retain { topic: String, payload: Vec<u8> },
    /// Published if connected, else forgotten.
    BestEffort { topic: String, payload: Vec<u8> },
    /// An answer to a command, published with QoS 1 if connected, else forgotten: who asked asks again.
    Reply { topic: String, payload: Vec<u8>, correlation_data: Option<Vec<u8>> },
    /// Ends once the outbox is empty.
    Drain,
    /// Ends once the outbox is empty, at the latest then.
    Stop(Instant),
}

/// Where the answer to a command goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyTo {
    topic: Option<String>,
    correlation_data: Option<Vec<u8>>,
}

impl ReplyTo {
    /// As the message asks for. A topic with wildcards is none, nor one of the broker's.
    pub fn of(message: &Incoming) -> ReplyTo {
        let topic = message
            .response_topic
            .clone()
            .filter(|t| !t.is_empty() && !t.contains(['+', '#', '\0']) && !t.starts_with('$'));
        ReplyTo { topic, correlation_data: message.correlation_data.clone() }
    }
}

/// The agent's side of the session; cheap to clone.
#[derive(Clone)]
pub struct SessionHandle(mpsc::UnboundedSender<Request>);

impl SessionHandle {
    pub(super) fn new() -> (SessionHandle, mpsc::UnboundedReceiver<Request>) {
        let (sender, requests) = mpsc::unbounded_channel();
        (SessionHandle(sender), requests)
    }

    /// From now on the retained value of `topic`, said again at every connection.
    pub fn retain(&self, topic: String, payload: Vec<u8>) {
        let _ = self.0.send(Request::Retain { topic, payload });
    }

    /// Publishes with QoS 0 if there is a connection; else it is forgotten.
    pub fn best_effort(&self, topic: String, payload: Vec<u8>) {
        let _ = self.0.send(Request::BestEffort { topic, payload });
    }

    /// Answers a command: where its sender wants it, or at `result_topic`.
    pub fn reply(&self, to: ReplyTo, result_topic: String, payload: Vec<u8>) {
        let topic = to.topic.unwrap_or(result_topic);
        let _ = self.0.send(Request::Reply { topic, payload, correlation_data: to.correlation_data });
    }

    /// Ends the session when everything is acknowledged, however long it takes.
    pub fn drain(&self) {
        let _ = self.0.send(Request::Drain);
    }

    /// Ends the session when everything is acknowledged, or after `deadline`; the rest stays in the outbox.
    pub fn stop(&self, deadline: Duration) {
        let _ = self.0.send(Request::Stop(Instant::now() + deadline));
    }
}
