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

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(topic: Option<&str>) -> Incoming {
        Incoming {
            topic: "site/cmd/update-model/7".into(),
            payload: vec![],
            content_type: None,
            event_id: None,
            retained: false,
            response_topic: topic.map(str::to_owned),
            correlation_data: Some(vec![1, 2]),
        }
    }

    /// Whoever sends a command says where the answer goes; a topic that cannot be published at is none.
    #[test]
    fn an_answer_goes_where_it_was_asked_for_or_to_the_usual_place() {
        for (asked, expected) in [
            (Some("mine/answers"), "mine/answers"),
            (Some(""), "usual"),
            (Some("a/+/b"), "usual"),
            (Some("a/#"), "usual"),
            (Some("a\0b"), "usual"),
            (Some("$SYS/a"), "usual"),
            (None, "usual"),
        ] {
            let (handle, mut requests) = SessionHandle::new();
            handle.reply(ReplyTo::of(&asking(asked)), "usual".into(), vec![9]);
            let Some(Request::Reply { topic, payload, correlation_data }) = requests.try_recv().ok() else {
                panic!("no answer for {asked:?}");
            };
            assert_eq!((topic.as_str(), payload, correlation_data), (expected, vec![9], Some(vec![1, 2])), "{asked:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_agent_asks_reaches_the_session() {
        let (handle, mut requests) = SessionHandle::new();
        handle.retain("a".into(), vec![1]);
        handle.best_effort("b".into(), vec![2]);
        handle.drain();
        handle.stop(Duration::from_secs(3));
        let mut next = || requests.try_recv().ok();
        assert!(matches!(next(), Some(Request::Retain { topic, payload }) if topic == "a" && payload == [1]));
        assert!(matches!(next(), Some(Request::BestEffort { topic, payload }) if topic == "b" && payload == [2]));
        assert!(matches!(next(), Some(Request::Drain)));
        let until = Instant::now() + Duration::from_secs(3);
        assert!(matches!(next(), Some(Request::Stop(deadline)) if deadline == until));
        assert!(next().is_none());
    }
}
