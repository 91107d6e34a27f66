use super::super::message::{Limits, Message, Priority};
use super::super::scripted::{MOMENT, PATIENCE, Peer, Scripted, topic};
use super::*;
use crate::mqtt::Protocol;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, Packet, PubAckReason, Publish, PublishProperties, SubAck};
use rumqttc::v5::mqttbytes::{QoS, v5};
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

const STATE: &str = "site/box/state";

/// A session over an outbox of its own.
struct Rig {
    store: StoreHandle,
    handle: SessionHandle,
    running: JoinHandle<()>,
    commands: mpsc::Receiver<Incoming>,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new(config: MqttConfig) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let (store, mut work) = StoreHandle::new(folder.path().join("o.sqlite"), Limits { max_bytes: 256 << 20 });
        std::thread::spawn(move || work.work());
        let topics = Topics::new("site/box").unwrap();
        let (mut session, handle) = Session::new(config, topics, Uuid::nil(), store.clone());
        let (sender, commands) = mpsc::channel(1);
        session.subscribe("site/box/cmd/+/+".into(), sender);
        let running = tokio::spawn(async move { session.run().await });
        Rig { store, handle, running, commands, _folder: folder }
    }

    /// Messages at the topics `NUMBER`, of so many bytes.
    fn put(&self, numbers: std::ops::Range<usize>, bytes: usize) {
        for n in numbers {
            let message = Message {
                priority: Priority::Opened,
                topic: n.to_string(),
                content_type: "application/json".into(),
                event_id: format!("event {n}"),
                payload: vec![b'x'; bytes],
            };
            self.store.put(vec![message], vec![]);
        }
    }

    /// Waits until so many messages are left in the outbox.
    async fn left(&self, expected: u64) {
        for _ in 0..1000 {
            if self.store.waiting() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} messages are left, not {expected}", self.store.waiting());
    }

    /// Seconds until the session has ended by itself.
    async fn ended(self) -> f64 {
        let begun = Instant::now();
        timeout(Duration::from_secs(20), self.running).await.expect("the session ends").unwrap();
        begun.elapsed().as_secs_f64()
    }
}

/// Past what every connection begins with: `online`, and the subscription.
async fn settled(broker: &Scripted) -> Peer {
    let mut peer = broker.welcome().await;
    begin(&mut peer).await;
    peer
}

async fn begin(peer: &mut Peer) {
    assert_eq!(peer.take(1).await, [STATE]);
    match peer.next().await {
        Some(Packet::Subscribe(s)) => {
            assert_eq!((s.filters[0].path.as_str(), s.filters[0].qos), ("site/box/cmd/+/+", QoS::AtLeastOnce));
            let return_codes = vec![v5::SubscribeReasonCode::Success(QoS::AtLeastOnce)];
            peer.send(Packet::SubAck(SubAck { pkid: s.pkid, return_codes, properties: None })).await;
        }
        other => panic!("{other:?} instead of SUBSCRIBE"),
    }
}

fn state(payload: &[u8]) -> String {
    let state: Value = serde_json::from_slice(payload).unwrap();
    state["state"].as_str().unwrap().to_owned()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn every_connection_begins_with_the_states_and_the_subscription() {
    let broker = Scripted::new().await;
    let rig = Rig::new(broker.config());
    rig.handle.retain("b".into(), b"1".to_vec());
    rig.handle.retain("a".into(), b"2".to_vec());
    let mut peer = broker.accept().await;
    let will = peer.will.take().unwrap();
    assert_eq!((will.topic.as_ref(), will.qos, will.retain), (STATE.as_bytes(), QoS::AtLeastOnce, true));
    assert_eq!(state(&will.message), "offline");
    // Said while there was no connection yet.
    rig.handle.retain("b".into(), b"3".to_vec());
    rig.handle.best_effort("forgotten".into(), vec![]);
    tokio::time::sleep(MOMENT).await;
    peer.answer(ConnectReturnCode::Success, None).await;
    let hello = peer.published().await;
    assert_eq!((topic(&hello).as_str(), hello.qos, hello.retain), (STATE, QoS::AtLeastOnce, true));
    assert_eq!(state(&hello.payload), "online");
    assert_eq!(hello.properties.unwrap().content_type.as_deref(), Some("application/json"));
    for (at, value) in [("a", "2"), ("b", "3")] {
        let message = peer.published().await;
        assert_eq!((topic(&message).as_str(), message.payload.as_ref(), message.retain), (at, value.as_bytes(), true));
    }
    assert!(matches!(peer.next().await, Some(Packet::Subscribe(_))));
    // The next value goes out at once.
    rig.handle.retain("b".into(), b"4".to_vec());
    let message = peer.published().await;
    assert_eq!((topic(&message).as_str(), message.payload.as_ref(), message.retain), ("b", &b"4"[..], true));

    drop(peer);
    let mut again = broker.welcome().await;
    assert_eq!(again.take(3).await, [STATE, "a", "b"]);
    assert!(matches!(again.next().await, Some(Packet::Subscribe(_))));
}

#[tokio::test]
async fn the_outbox_goes_out_in_order_sixteen_at_a_time_and_only_the_acknowledged_is_deleted() {
    let broker = Scripted::new().await;
    let rig = Rig::new(broker.config());
    rig.put(0..40, 10);
    let mut peer = settled(&broker).await;
    let first = peer.just_published(16).await;
    assert_eq!(first.iter().map(topic).collect::<Vec<_>>(), numbers(0..16));
    let properties = first[3].properties.clone().unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.payload_format_indicator, Some(1));
    assert_eq!(properties.user_properties, [("event-id".to_owned(), "event 3".to_owned())]);
    assert!(!first[3].retain && first[3].qos == QoS::AtLeastOnce);
    assert_eq!(rig.store.waiting(), 40);

    // Out of order, as a broker may.
    peer.acknowledge(&first[1]).await;
    peer.answer_to(&first[0], PubAckReason::NoMatchingSubscribers).await;
    rig.left(38).await;
    assert_eq!(peer.just_published(2).await.iter().map(topic).collect::<Vec<_>>(), numbers(16..18));

    // What was not acknowledged comes again on the next connection, and first.
    drop(peer);
    let mut again = settled(&broker).await;
    assert_eq!(again.take(38).await, numbers(2..40));
    rig.left(0).await;
    rig.put(40..41, 10);
    assert_eq!(again.take(1).await, ["40"]);
}

#[tokio::test]
async fn large_messages_are_on_their_way_four_megabytes_at_a_time() {
    let broker = Scripted::new().await;
    let rig = Rig::new(MqttConfig { max_packet_bytes: 8 << 20, ..broker.config() });
    let mut peer = settled(&broker).await;
    rig.put(0..7, 1_100_000);
    // 4 MiB hold three of them, and the fourth goes over.
    let first = peer.just_published(4).await;
    assert_eq!(first.iter().map(topic).collect::<Vec<_>>(), numbers(0..4));
    peer.acknowledge(&first[0]).await;
    assert_eq!(topic(&peer.just_published(1).await[0]), "4");
    peer.answer_to(&first[1], PubAckReason::QuotaExceeded).await;
    assert_eq!(topic(&peer.just_published(1).await[0]), "5");
    rig.left(6).await;
}

#[tokio::test]
async fn what_is_larger_than_the_broker_takes_is_dropped_and_counted() {
    for (ours, brokers) in [(1 << 20, Some(2000)), (2000, None), (2000, Some(1 << 20))] {
        let broker = Scripted::new().await;
        let rig = Rig::new(MqttConfig { max_packet_bytes: ours, ..broker.config() });
        // With topic, type and 256 bytes for the rest exactly at the limit, and one more.
        let around = "0".len() + "application/json".len() + 256;
        rig.put(0..1, 2000 - around);
        rig.put(1..2, 2000 - around + 1);
        rig.put(2..3, 10);
        let mut peer = broker.accept().await;
        peer.answer(ConnectReturnCode::Success, brokers).await;
        begin(&mut peer).await;
        assert_eq!(peer.take(2).await, ["0", "2"], "{ours} {brokers:?}");
        rig.left(0).await;
        assert_eq!(rig.store.health().dropped_oversize, 1);
    }
}

#[tokio::test]
async fn what_the_broker_refuses_stays_until_the_next_connection() {
    let broker = Scripted::new().await;
    let rig = Rig::new(broker.config());
    rig.put(0..2, 10);
    let mut peer = settled(&broker).await;
    let (refused, taken) = (peer.published().await, peer.published().await);
    peer.answer_to(&refused, PubAckReason::NotAuthorized).await;
    peer.acknowledge(&taken).await;
    rig.left(1).await;
    rig.put(2..3, 10);
    assert_eq!(peer.take(1).await, ["2"]);
    rig.left(1).await;
    peer.silent().await;

    drop(peer);
    let mut again = settled(&broker).await;
    let message = again.published().await;
    assert_eq!(topic(&message), "0");
    // Nor is it waited for at the end.
    again.answer_to(&message, PubAckReason::QuotaExceeded).await;
    rig.handle.drain();
    assert_eq!(again.take(1).await, [STATE]);
    again.goodbye().await;
    assert_eq!(rig.store.waiting(), 1);
    rig.ended().await;
}

/// A refused state is nothing to wait for either.
#[tokio::test]
async fn a_session_drains_says_stopped_and_goodbye() {
    let broker = Scripted::new().await;
    let rig = Rig::new(broker.config());
    rig.put(0..2, 10);
    let mut peer = settled(&broker).await;
    let messages = [peer.published().await, peer.published().await];
    rig.handle.retain("a".into(), vec![]);
    let retained = peer.published().await;
    peer.answer_to(&retained, PubAckReason::NotAuthorized).await;
    rig.handle.drain();
    peer.acknowledge(&messages[0]).await;
    // One is not acknowledged.
    peer.silent().await;
    peer.acknowledge(&messages[1]).await;
    let stopped = peer.published().await;
    assert_eq!((topic(&stopped).as_str(), state(&stopped.payload).as_str(), stopped.retain), (STATE, "stopped", true));
    // Not before the broker has it, and then at once.
    peer.silent().await;
    let begun = Instant::now();
    peer.acknowledge(&stopped).await;
    peer.goodbye().await;
    assert!(begun.elapsed() < Duration::from_millis(1600));
    let store = rig.store.clone();
    assert!(rig.ended().await < 2.0);
    assert_eq!(store.waiting(), 0);
}

#[tokio::test]
async fn a_stop_ends_as_soon_as_all_is_delivered_or_at_its_deadline() {
    let broker = Scripted::new().await;
    let rig = Rig::new(broker.config());
    let mut peer = settled(&broker).await;
    rig.handle.stop(Duration::from_secs(15));
    assert_eq!(peer.take(1).await, [STATE]);
    peer.goodbye().await;
    assert!(rig.ended().await < 5.0, "nothing was to be delivered");

    let rig = Rig::new(broker.config());
    rig.put(0..1, 10);
    let mut peer = settled(&broker).await;
    let message = peer.published().await;
    let begun = Instant::now();
    rig.handle.stop(Duration::from_secs(1));
    let stopped = peer.published().await;
    assert!(begun.elapsed() > Duration::from_millis(900) && state(&stopped.payload) == "stopped");
    assert_eq!(rig.store.waiting(), 1);
    // What is acknowledged at the last moment is deleted, too.
    peer.acknowledge(&message).await;
    tokio::time::sleep(MOMENT).await;
    peer.acknowledge(&stopped).await;
    peer.goodbye().await;
    rig.left(0).await;
    rig.ended().await;
}

#[tokio::test]
async fn last_words_that_nobody_takes_are_given_two_seconds() {
    let broker = Scripted::new().await;
    let rig = Rig::new(broker.config());
    let mut peer = settled(&broker).await;
    let begun = Instant::now();
    rig.handle.drain();
    assert_eq!(state(&peer.published().await.payload), "stopped");
    peer.goodbye().await;
    assert!(begun.elapsed() > Duration::from_millis(1900));
    rig.ended().await;
}

#[tokio::test]
async fn without_a_broker_a_drain_waits_for_the_outbox_and_a_stop_for_its_deadline() {
    // Bound, so that nobody else gets the port, and without anybody who listens.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let away = MqttConfig { port: bound.local_addr().unwrap().port(), ..Scripted::new().await.config() };
    let rig = Rig::new(away.clone());
    let begun = Instant::now();
    rig.handle.drain();
    rig.ended().await;
    let took = begun.elapsed().as_secs_f64();
    assert!((1.8..10.0).contains(&took), "last words are worth two seconds: {took}");

    let rig = Rig::new(away.clone());
    rig.put(0..1, 10);
    rig.handle.drain();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!rig.running.is_finished(), "an event waits");
    let begun = Instant::now();
    rig.handle.stop(Duration::from_millis(200));
    // A later drain does not put it off.
    rig.handle.drain();
    rig.ended().await;
    assert!((0.2..5.0).contains(&begun.elapsed().as_secs_f64()));

    // Connected to, but never let in.
    let silent = Scripted::new().await;
    let rig = Rig::new(silent.config());
    let _peer = silent.accept().await;
    let begun = Instant::now();
    rig.handle.stop(Duration::from_millis(500));
    rig.ended().await;
    assert!((0.5..5.0).contains(&begun.elapsed().as_secs_f64()));
}

#[tokio::test]
async fn commands_come_through_as_long_as_there_is_room() {
    let broker = Scripted::new().await;
    let mut rig = Rig::new(broker.config());
    let mut peer = settled(&broker).await;
    let command = |n: u16| {
        let properties = PublishProperties {
            response_topic: Some("answers".into()),
            correlation_data: Some(vec![7, n as u8].into()),
            content_type: Some("application/json".into()),
            user_properties: vec![("other".into(), "x".into()), ("event-id".into(), "e".into())],
            ..PublishProperties::default()
        };
        let mut message =
            Publish::new(format!("site/box/cmd/rollback/{n}"), QoS::AtLeastOnce, vec![n as u8], Some(properties));
        message.pkid = n;
        message.retain = n == 1;
        Packet::Publish(message)
    };
    for n in 1..=3 {
        peer.send(command(n)).await;
        assert!(matches!(peer.next().await, Some(Packet::PubAck(ack)) if ack.pkid == n));
    }
    tokio::time::sleep(MOMENT).await;
    let first = rig.commands.recv().await.unwrap();
    assert_eq!((first.topic.as_str(), first.payload.as_slice()), ("site/box/cmd/rollback/1", &[1][..]));
    assert_eq!((first.response_topic.as_deref(), first.correlation_data), (Some("answers"), Some(vec![7, 1])));
    assert_eq!((first.content_type.as_deref(), first.event_id.as_deref()), (Some("application/json"), Some("e")));
    assert!(first.retained);
    // There was room for one; the line goes on.
    assert!(timeout(MOMENT, rig.commands.recv()).await.is_err());
    peer.send(command(4)).await;
    assert!(matches!(peer.next().await, Some(Packet::PubAck(ack)) if ack.pkid == 4));
    let fourth = rig.commands.recv().await.unwrap();
    assert!(fourth.payload == [4] && !fourth.retained);

    rig.handle.reply(super::super::ReplyTo::of(&fourth), "usual".into(), b"done".to_vec());
    let answer = peer.published().await;
    assert_eq!((topic(&answer).as_str(), answer.qos, answer.retain), ("answers", QoS::AtLeastOnce, false));
    assert_eq!(answer.payload.as_ref(), b"done");
    let properties = answer.properties.unwrap();
    assert_eq!(properties.correlation_data.as_deref(), Some(&[7, 4][..]));
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    rig.handle.best_effort("health".into(), b"{}".to_vec());
    let health = peer.published().await;
    assert_eq!((topic(&health).as_str(), health.qos, health.retain), ("health", QoS::AtMostOnce, false));
    assert_eq!(health.properties.unwrap().content_type.as_deref(), Some("application/json"));
}

/// A broker that does not read holds the client up; what may be lost is then lost, and the connection is not.
#[tokio::test]
async fn a_slow_broker_costs_results_and_not_the_connection() {
    let broker = Scripted::new().await;
    let rig = Rig::new(broker.config());
    let mut peer = settled(&broker).await;
    for _ in 0..2000 {
        rig.handle.best_effort("result".into(), vec![0; 60_000]);
    }
    tokio::time::sleep(MOMENT).await;
    rig.handle.retain("a".into(), vec![]);
    let mut results = 0;
    let retained = loop {
        let message = peer.published().await;
        match topic(&message).as_str() {
            "result" => results += 1,
            _ => break message,
        }
    };
    assert_eq!(topic(&retained), "a");
    assert!((256..1500).contains(&results), "{results}");
}

#[tokio::test]
async fn a_broker_that_goes_silent_is_left_and_a_slow_one_is_not() {
    let broker = Scripted::new().await;
    let keep_alive = Duration::from_secs(1);
    let rig = Rig::new(MqttConfig { protocol: Protocol::V311, keep_alive, ..broker.config() });
    rig.put(0..3, 10);
    let mut peer = old::welcome(&broker).await;
    // An acknowledgement before each patience ends: online, and then the events.
    let (mut unanswered, mut begun) = (vec![], Instant::now());
    for _ in 0..3 {
        old::listen(&mut peer, keep_alive * 2, &mut unanswered).await;
        begun = Instant::now();
        old::acknowledge(&mut peer, unanswered.remove(0)).await;
    }
    while old::next(&mut peer).await.is_some() {}
    let patience = begun.elapsed().as_secs_f64();
    assert!((2.9..12.0).contains(&patience), "three times the keep-alive: {patience}");
    rig.left(1).await;
    old::welcome(&broker).await;
}

/// The pauses double up to the longest, and begin anew once there was a connection.
#[tokio::test]
async fn pauses_between_attempts_grow_and_begin_anew() {
    async fn pauses(broker: &Scripted, count: usize) -> Vec<f64> {
        let mut pauses = vec![];
        drop(broker.accept().await);
        for _ in 0..count {
            let begun = Instant::now();
            drop(broker.accept().await);
            pauses.push(begun.elapsed().as_secs_f64());
        }
        pauses
    }
    let broker = Scripted::new().await;
    let rig = Rig::new(MqttConfig { reconnect_max: Duration::from_secs(8), ..broker.config() });
    let grown = pauses(&broker, 3).await;
    for (pause, least) in grown.iter().zip([0.4, 0.8, 1.6]) {
        assert!((least..least * 1.5 + 1.0).contains(pause), "{grown:?}");
    }
    drop(settled(&broker).await);
    let begun = Instant::now();
    drop(broker.accept().await);
    assert!(begun.elapsed().as_secs_f64() < 4.0, "it would be eight seconds");
    rig.running.abort();

    let rig = Rig::new(MqttConfig { reconnect_max: Duration::from_secs(1), ..broker.config() });
    let bounded = pauses(&broker, 4).await;
    assert!(bounded[3] > 0.7 && bounded[3] < 2.5, "{bounded:?}");
    rig.running.abort();
}

#[tokio::test]
async fn mqtt_311_has_the_id_of_a_picture_in_its_topic() {
    let broker = Scripted::new().await;
    let rig = Rig::new(MqttConfig { protocol: Protocol::V311, ..broker.config() });
    rig.put(0..1, 10);
    let picture = Message {
        priority: Priority::Heatmap,
        topic: "heatmap".into(),
        content_type: "image/png".into(),
        event_id: "e".into(),
        payload: vec![1],
    };
    rig.store.put(vec![picture], vec![]);
    let mut peer = old::welcome(&broker).await;
    let mut topics = vec![];
    while topics.len() < 4 {
        match old::next(&mut peer).await {
            Some(rumqttc::Packet::Publish(message)) => {
                topics.push(message.topic.clone());
                old::acknowledge(&mut peer, message.pkid).await;
            }
            Some(rumqttc::Packet::Subscribe(s)) => topics.push(s.filters[0].path.clone()),
            other => panic!("{other:?}"),
        }
    }
    topics.sort();
    assert_eq!(topics, ["0", "heatmap/e", "site/box/cmd/+/+", STATE]);
    rig.left(0).await;
}

/// MQTT 3.1.1, as its broker sees it.
mod old {
    use super::{PATIENCE, Scripted};
    use futures::{SinkExt, StreamExt};
    use rumqttc::{Codec, ConnAck, ConnectReturnCode, Packet, PubAck};
    use std::time::Duration;
    use tokio::net::TcpStream;
    use tokio::time::timeout;
    use tokio_util::codec::Framed;

    pub type Wire = Framed<TcpStream, Codec>;

    pub async fn welcome(broker: &Scripted) -> Wire {
        let codec = Codec { max_incoming_size: 1 << 20, max_outgoing_size: 1 << 20 };
        let mut wire = Framed::new(broker.stream().await, codec);
        assert!(matches!(wire.next().await, Some(Ok(Packet::Connect(_)))));
        wire.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await.unwrap();
        wire
    }

    /// The next packet but a ping, which is answered; None at the end.
    pub async fn next(wire: &mut Wire) -> Option<Packet> {
        loop {
            match timeout(PATIENCE, wire.next()).await.expect("a packet, or the end")? {
                Ok(Packet::PingReq) => wire.send(Packet::PingResp).await.unwrap(),
                Ok(packet) => return Some(packet),
                Err(_) => return None,
            }
        }
    }

    pub async fn acknowledge(wire: &mut Wire, number: u16) {
        wire.send(Packet::PubAck(PubAck::new(number))).await.unwrap();
    }

    /// Gathers the numbers of the messages that come within `span`.
    pub async fn listen(wire: &mut Wire, span: Duration, numbers: &mut Vec<u16>) {
        let all = async {
            while let Some(packet) = next(wire).await {
                if let Packet::Publish(message) = packet {
                    numbers.push(message.pkid);
                }
            }
        };
        assert!(timeout(span, all).await.is_err(), "the connection broke");
    }
}

/// An event that came while the outbox was asked for others was forgotten where its arrival was seen before the answer: it waited for the next event, and an
/// agent that was to end when all was delivered never ended.
#[tokio::test]
async fn what_comes_while_the_outbox_is_asked_goes_out_too() {
    let broker = Scripted::new().await;
    let rig = Rig::new(broker.config());
    let mut peer = settled(&broker).await;
    // Nothing but the outbox's thread runs meanwhile.
    let others = || std::thread::sleep(Duration::from_millis(2));
    for n in 0..96 {
        let [first, second] = [2 * n, 2 * n + 1];
        rig.put(first..first + 1, 10);
        let message = peer.published().await;
        assert_eq!(topic(&message), first.to_string());
        peer.acknowledge(&message).await;
        // The session hears of it, has it deleted, hears that it was, and asks whether there is more: how far it comes differs.
        for _ in 0..n % 12 {
            others();
            tokio::task::yield_now().await;
        }
        others();
        rig.put(second..second + 1, 10);
        others();
        let message = timeout(Duration::from_secs(5), peer.published()).await.expect("it goes out by itself");
        assert_eq!(topic(&message), second.to_string());
        peer.acknowledge(&message).await;
        rig.left(0).await;
    }
}
