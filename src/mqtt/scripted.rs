//! For tests: a broker that does what the test says, where a real one cannot be made to: refuse one message, acknowledge late or never, take
//! only small ones. What a broker does by itself is tried with mosquitto, in `tests/it`.

use super::link::MqttConfig;
use futures::{SinkExt, StreamExt};
use rumqttc::v5::mqttbytes::{Error, QoS, v5};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::codec::Framed;

/// Long enough for a machine with much else to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for what would come, short enough to wait for what must not.
pub(super) const MOMENT: Duration = Duration::from_millis(300);

/// Nobody but the test answers at its port.
pub(super) struct Scripted(TcpListener);

impl Scripted {
    pub(super) async fn new() -> Scripted {
        Scripted(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) fn config(&self) -> MqttConfig {
        MqttConfig {
            connect_timeout: Duration::from_secs(10),
            reconnect_max: Duration::from_millis(500),
            max_packet_bytes: 1 << 20,
            ..MqttConfig::plain("127.0.0.1", self.0.local_addr().unwrap().port(), "box")
        }
    }

    /// The next connection, before anything was read from it.
    pub(super) async fn stream(&self) -> TcpStream {
        timeout(PATIENCE, self.0.accept()).await.expect("a connection").unwrap().0
    }

    /// The next client, before it was answered.
    pub(super) async fn accept(&self) -> Peer {
        let codec = v5::Codec { max_incoming_size: None, max_outgoing_size: None };
        let mut wire = Framed::new(self.stream().await, codec);
        match timeout(PATIENCE, wire.next()).await {
            Ok(Some(Ok(v5::Packet::Connect(connect, will, login)))) => Peer { wire, connect, will, login },
            other => panic!("{other:?} instead of CONNECT"),
        }
    }

    /// The next client, let in.
    pub(super) async fn welcome(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.answer(v5::ConnectReturnCode::Success, None).await;
        peer
    }
}

/// A client of MQTT 5, as its broker sees it.
pub(super) struct Peer {
    wire: Framed<TcpStream, v5::Codec>,
    pub(super) connect: v5::Connect,
    pub(super) will: Option<v5::LastWill>,
    pub(super) login: Option<v5::Login>,
}

impl Peer {
    pub(super) async fn send(&mut self, packet: v5::Packet) {
        self.wire.send(packet).await.unwrap();
    }

    /// Answers CONNECT.
    pub(super) async fn answer(&mut self, code: v5::ConnectReturnCode, max_packet_size: Option<u32>) {
        let properties = max_packet_size.map(|limit| v5::ConnAckProperties {
            session_expiry_interval: None,
            receive_max: None,
            max_qos: None,
            retain_available: None,
            max_packet_size: Some(limit),
            assigned_client_identifier: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: vec![],
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        });
        self.send(v5::Packet::ConnAck(v5::ConnAck { session_present: false, code, properties })).await;
    }

    /// The next packet; None once the client has gone or said goodbye.
    pub(super) async fn next(&mut self) -> Option<v5::Packet> {
        match timeout(PATIENCE, self.wire.next()).await.expect("a packet, or the end") {
            Some(Ok(packet)) => Some(packet),
            // See `goodbye`.
            Some(Err(Error::PayloadRequired)) | None => None,
            Some(Err(e)) => panic!("{e}"),
        }
    }

    /// Waits for the client's DISCONNECT: not only the end of the connection.
    pub(super) async fn goodbye(&mut self) {
        match timeout(PATIENCE, self.wire.next()).await.expect("a goodbye") {
            // One without a reason has no payload, which this reader takes for an error.
            Some(Err(Error::PayloadRequired)) => {}
            other => panic!("{other:?} instead of DISCONNECT"),
        }
    }

    /// The next message that is published.
    pub(super) async fn published(&mut self) -> v5::Publish {
        match self.next().await {
            Some(v5::Packet::Publish(message)) => message,
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    /// So many messages, behind which nothing more comes.
    pub(super) async fn just_published(&mut self, count: usize) -> Vec<v5::Publish> {
        let mut all = vec![];
        for _ in 0..count {
            all.push(self.published().await);
        }
        self.silent().await;
        all
    }

    /// Nothing comes for a moment.
    pub(super) async fn silent(&mut self) {
        if let Ok(packet) = timeout(MOMENT, self.next()).await {
            panic!("{packet:?} instead of silence");
        }
    }

    pub(super) async fn acknowledge(&mut self, message: &v5::Publish) {
        self.answer_to(message, v5::PubAckReason::Success).await;
    }

    pub(super) async fn answer_to(&mut self, message: &v5::Publish, reason: v5::PubAckReason) {
        assert_eq!(message.qos, QoS::AtLeastOnce);
        self.send(v5::Packet::PubAck(v5::PubAck { pkid: message.pkid, reason, properties: None })).await;
    }

    /// Takes and acknowledges `messages`, and gives back their topics.
    pub(super) async fn take(&mut self, messages: usize) -> Vec<String> {
        let mut topics = vec![];
        for _ in 0..messages {
            let message = self.published().await;
            self.acknowledge(&message).await;
            topics.push(topic(&message));
        }
        topics
    }
}

pub(super) fn topic(message: &v5::Publish) -> String {
    String::from_utf8(message.topic.to_vec()).unwrap()
}
