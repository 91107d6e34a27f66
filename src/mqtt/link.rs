//! One connection to the broker, MQTT 5 or 3.1.1, as a stream of [`Event`]s.
//!
//! Every connection is a fresh client with a clean session: rumqttc drops what it holds in flight when the broker has
//! forgotten the session, so nothing is left to it that must survive. The outbox sends again what was not acknowledged.

use rumqttc::{Outgoing, Packet as Packet4, Transport, v5};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use v5::mqttbytes::v5::{ConnectReturnCode, Packet as Packet5, PubAckReason, PublishProperties};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    #[default]
    #[serde(rename = "5")]
    V5,
    #[serde(rename = "3.1.1")]
    V311,
}

/// Files of a TLS connection, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// None: the system's certificate authorities.
    pub ca: Option<PathBuf>,
    /// Certificate and key that we show to the broker.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Everything that a connection needs, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttConfig {
    pub host: String,
    pub port: u16,
    pub protocol: Protocol,
    pub client_id: String,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub tls: Option<TlsFiles>,
    /// At least 5 s.
    pub keep_alive: Duration,
    pub connect_timeout: Duration,
    /// Longest wait between two attempts to connect.
    pub reconnect_max: Duration,
    /// Larger messages are not published; a broker may set a smaller limit.
    pub max_packet_bytes: u32,
}

impl MqttConfig {
    /// MQTT 5 without TLS, user name or password, and with the times that the agent has unless it is told others.
    pub fn plain(host: &str, port: u16, client_id: &str) -> MqttConfig {
        MqttConfig {
            host: host.to_owned(),
            port,
            protocol: Protocol::V5,
            client_id: client_id.to_owned(),
            username: None,
            password_file: None,
            tls: None,
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            reconnect_max: Duration::from_secs(30),
            max_packet_bytes: 8 << 20,
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot read {what} {path}: {reason}")]
    File { what: &'static str, path: PathBuf, reason: String },
    #[error("{0}")]
    Tls(String),
    #[error("the broker {broker} refused the user name or the password ({reason})")]
    Credentials { broker: String, reason: String },
    #[error("the broker {broker} refused the connection ({reason})")]
    Refused { broker: String, reason: String },
    #[error("the broker {broker} cannot be reached: {reason}")]
    Unreachable { broker: String, reason: String },
    #[error("the connection to the broker is lost: {0}")]
    Lost(String),
}

/// What happens on the connection, in order.
#[derive(Debug)]
pub(super) enum Event {
    Connected {
        max_packet_bytes: Option<u32>,
    },
    /// The next message in the order of publishing went out under this number; 0 is QoS 0.
    Sent(u16),
    /// The broker took it, or refused it for this reason.
    Acked(u16, Option<String>),
    Subscribed,
    Incoming(Incoming),
    /// The last event.
    Down(LinkError),
}

/// A message that the broker sent us.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub topic: String,
    pub payload: Vec<u8>,
    pub content_type: Option<String>,
    pub event_id: Option<String>,
    /// The broker had kept it: it is from before we subscribed.
    pub retained: bool,
    /// Where the sender wants the answer; MQTT 5 only.
    pub response_topic: Option<String>,
    /// What the answer must carry, for the sender to know it again; MQTT 5 only.
    pub correlation_data: Option<Vec<u8>>,
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbound {
    pub topic: String,
    pub payload: Vec<u8>,
    pub at_least_once: bool,
    pub retain: bool,
    pub content_type: String,
    pub event_id: Option<String>,
    pub correlation_data: Option<Vec<u8>>,
}

enum Client {
    V5(v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// Dropping it breaks the connection without a goodbye, so that the broker publishes the will.
pub(super) struct Link {
    client: Client,
    pump: tokio::task::JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Requests that may wait inside the client. The session holds far fewer at a time.
pub(super) const REQUESTS: usize = 512;

impl Link {
    /// Starts to connect. `will` is published retained by the broker when it loses us.
    pub(super) fn open(
        config: &MqttConfig,
        will: Option<(String, Vec<u8>)>,
    ) -> Result<(Link, mpsc::UnboundedReceiver<Event>), LinkError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let broker = format!("{}:{}", config.host, config.port);
        let password = config.password_file.as_ref().map(|path| read("the password file", path)).transpose()?;
        // The first line only, as the configuration promises: editors and `echo` end it in their own ways.
        let password = password.map(|p| String::from_utf8_lossy(&p).lines().next().unwrap_or_default().to_owned());
        let password = password.unwrap_or_default();
        let transport = transport(config)?;
        let timeout = config.connect_timeout.as_secs().max(1);
        let link = match config.protocol {
            Protocol::V5 => {
                let mut options = v5::MqttOptions::new(&config.client_id, &config.host, config.port);
                options.set_transport(transport).set_keep_alive(config.keep_alive).set_clean_start(true);
                options.set_connection_timeout(timeout).set_max_packet_size(Some(config.max_packet_bytes));
                if let Some(user) = &config.username {
                    options.set_credentials(user, password);
                }
                if let Some((topic, payload)) = will {
                    let qos = v5::mqttbytes::QoS::AtLeastOnce;
                    options.set_last_will(v5::mqttbytes::v5::LastWill::new(topic, payload, qos, true, None));
                }
                let (client, event_loop) = v5::AsyncClient::new(options, REQUESTS);
                Link { client: Client::V5(client), pump: tokio::spawn(pump5(event_loop, events, broker)) }
            }
            Protocol::V311 => {
                let mut options = rumqttc::MqttOptions::new(&config.client_id, &config.host, config.port);
                options.set_transport(transport).set_keep_alive(config.keep_alive).set_clean_session(true);
                options
                    .set_max_packet_size(config.max_packet_bytes as usize, config.max_packet_bytes as usize)
                    .set_inflight(20);
                if let Some(user) = &config.username {
                    options.set_credentials(user, password);
                }
                if let Some((topic, payload)) = will {
                    options.set_last_will(rumqttc::LastWill::new(topic, payload, rumqttc::QoS::AtLeastOnce, true));
                }
                let (client, mut event_loop) = rumqttc::AsyncClient::new(options, REQUESTS);
                event_loop.network_options.set_connection_timeout(timeout);
                Link { client: Client::V311(client), pump: tokio::spawn(pump311(event_loop, events, broker)) }
            }
        };
        Ok((link, receiver))
    }

    /// Hands over one message. False when the client takes nothing more; then the connection is to be given up.
    pub(super) fn publish(&self, message: Outbound) -> bool {
        let Outbound { topic, payload, at_least_once, retain, content_type, event_id, correlation_data } = message;
        match &self.client {
            Client::V5(client) => {
                let qos = if at_least_once { v5::mqttbytes::QoS::AtLeastOnce } else { v5::mqttbytes::QoS::AtMostOnce };
                let properties = PublishProperties {
                    payload_format_indicator: Some(u8::from(content_type == "application/json")),
                    content_type: Some(content_type),
                    correlation_data: correlation_data.map(Into::into),
                    user_properties: event_id.map(|id| ("event-id".into(), id)).into_iter().collect(),
                    ..PublishProperties::default()
                };
                client.try_publish_with_properties(topic, qos, retain, payload, properties).is_ok()
            }
            Client::V311(client) => {
                let qos = if at_least_once { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce };
                // Without properties the event's id can only travel in the topic; JSON carries its own.
                let topic = match event_id {
                    Some(id) if content_type != "application/json" => format!("{topic}/{id}"),
                    _ => topic,
                };
                client.try_publish(topic, qos, retain, payload).is_ok()
            }
        }
    }

    pub(super) fn subscribe(&self, filter: &str) -> bool {
        match &self.client {
            Client::V5(client) => client.try_subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce).is_ok(),
            Client::V311(client) => client.try_subscribe(filter, rumqttc::QoS::AtLeastOnce).is_ok(),
        }
    }

    /// Says goodbye: the broker forgets the will. [`Event::Down`] follows.
    pub(super) fn disconnect(&self) {
        let _ = match &self.client {
            Client::V5(client) => client.try_disconnect().is_ok(),
            Client::V311(client) => client.try_disconnect().is_ok(),
        };
    }
}

/// Connects, without a will and under another name, and says goodbye: what `check` does.
///
/// # Errors
/// Why it cannot be done.
pub async fn probe(config: &MqttConfig) -> Result<(), LinkError> {
    let config = MqttConfig { client_id: format!("{}-check", config.client_id), ..config.clone() };
    let (link, mut events) = Link::open(&config, None)?;
    loop {
        match events.recv().await {
            Some(Event::Connected { .. }) => {
                link.disconnect();
                let _ = tokio::time::timeout(Duration::from_millis(500), events.recv()).await;
                return Ok(());
            }
            Some(Event::Down(why)) => return Err(why),
            Some(_) => {}
            None => return Err(LinkError::Unreachable { broker: config.host, reason: "the client ended".into() }),
        }
    }
}

fn read(what: &'static str, path: &PathBuf) -> Result<Vec<u8>, LinkError> {
    std::fs::read(path).map_err(|e| LinkError::File { what, path: path.clone(), reason: e.to_string() })
}

fn transport(config: &MqttConfig) -> Result<Transport, LinkError> {
    let Some(tls) = &config.tls else { return Ok(Transport::tcp()) };
    // rumqttc is built without a provider of its own. A second installation is refused, and the first one stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Not rumqttc's own choices: its default panics over a machine without certificates and shows no client certificate.
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(ca) => roots.add_parsable_certificates(certificates("the certificate authority", ca)?),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    if roots.is_empty() {
        return Err(LinkError::Tls(match &tls.ca {
            Some(ca) => format!("the certificate authority {} holds no certificate that can be used", ca.display()),
            None => "this machine has no certificate authorities; name one with mqtt.tls.ca_file".into(),
        }));
    }
    let trusting = rustls::ClientConfig::builder().with_root_certificates(roots);
    let client_config = match &tls.client {
        None => trusting.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("the client certificate", certificate)?;
            let secret = PrivateKeyDer::from_pem_slice(&read("the client key", key)?)
                .map_err(|e| LinkError::Tls(format!("the client key {} cannot be used: {e}", key.display())))?;
            trusting.with_client_auth_cert(chain, secret).map_err(|e| {
                LinkError::Tls(format!("the client certificate {} cannot be used: {e}", certificate.display()))
            })?
        }
    };
    Ok(Transport::tls_with_config(client_config.into()))
}

/// Every certificate of a PEM file.
fn certificates(what: &'static str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let pem = read(what, path)?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| LinkError::File {
        what,
        path: path.clone(),
        reason: e.to_string(),
    })
}

async fn pump5(mut event_loop: v5::EventLoop, events: mpsc::UnboundedSender<Event>, broker: String) {
    loop {
        let event = match event_loop.poll().await {
            Ok(v5::Event::Incoming(Packet5::ConnAck(ack))) => {
                Event::Connected { max_packet_bytes: ack.properties.and_then(|p| p.max_packet_size) }
            }
            Ok(v5::Event::Incoming(Packet5::PubAck(ack))) => {
                use PubAckReason::{NoMatchingSubscribers, Success};
                let refused = !matches!(ack.reason, Success | NoMatchingSubscribers);
                Event::Acked(ack.pkid, refused.then(|| format!("{:?}", ack.reason)))
            }
            Ok(v5::Event::Incoming(Packet5::Publish(p))) => {
                let properties = p.properties.unwrap_or_default();
                let id = properties.user_properties.into_iter().find(|(k, _)| k == "event-id").map(|(_, v)| v);
                Event::Incoming(Incoming {
                    topic: String::from_utf8_lossy(&p.topic).into_owned(),
                    payload: p.payload.to_vec(),
                    content_type: properties.content_type,
                    event_id: id,
                    retained: p.retain,
                    response_topic: properties.response_topic,
                    correlation_data: properties.correlation_data.map(|data| data.to_vec()),
                })
            }
            Ok(v5::Event::Incoming(Packet5::SubAck(_))) => Event::Subscribed,
            Ok(v5::Event::Outgoing(Outgoing::Publish(pkid))) => Event::Sent(pkid),
            Ok(_) => continue,
            Err(e) => Event::Down(explain5(e, broker.clone())),
        };
        let last = matches!(event, Event::Down(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

async fn pump311(mut event_loop: rumqttc::EventLoop, events: mpsc::UnboundedSender<Event>, broker: String) {
    loop {
        let event = match event_loop.poll().await {
            Ok(rumqttc::Event::Incoming(Packet4::ConnAck(_))) => Event::Connected { max_packet_bytes: None },
            Ok(rumqttc::Event::Incoming(Packet4::PubAck(ack))) => Event::Acked(ack.pkid, None),
            Ok(rumqttc::Event::Incoming(Packet4::Publish(p))) => Event::Incoming(Incoming {
                topic: p.topic,
                payload: p.payload.to_vec(),
                content_type: None,
                event_id: None,
                retained: p.retain,
                response_topic: None,
                correlation_data: None,
            }),
            Ok(rumqttc::Event::Incoming(Packet4::SubAck(_))) => Event::Subscribed,
            Ok(rumqttc::Event::Outgoing(Outgoing::Publish(pkid))) => Event::Sent(pkid),
            Ok(_) => continue,
            Err(e) => Event::Down(explain311(e, broker.clone())),
        };
        let last = matches!(event, Event::Down(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

fn explain5(e: v5::ConnectionError, broker: String) -> LinkError {
    match e {
        v5::ConnectionError::ConnectionRefused(code) => {
            let reason = format!("{code:?}");
            match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    LinkError::Credentials { broker, reason }
                }
                _ => LinkError::Refused { broker, reason },
            }
        }
        v5::ConnectionError::Io(e) => LinkError::Unreachable { broker, reason: e.to_string() },
        v5::ConnectionError::Timeout(_) => LinkError::Unreachable { broker, reason: "no answer in time".into() },
        e => LinkError::Unreachable { broker, reason: e.to_string() },
    }
}

fn explain311(e: rumqttc::ConnectionError, broker: String) -> LinkError {
    use rumqttc::ConnectReturnCode as Code;
    match e {
        rumqttc::ConnectionError::ConnectionRefused(code) => {
            let reason = format!("{code:?}");
            match code {
                Code::BadUserNamePassword | Code::NotAuthorized => LinkError::Credentials { broker, reason },
                _ => LinkError::Refused { broker, reason },
            }
        }
        rumqttc::ConnectionError::Io(e) => LinkError::Unreachable { broker, reason: e.to_string() },
        rumqttc::ConnectionError::NetworkTimeout => {
            LinkError::Unreachable { broker, reason: "no answer in time".into() }
        }
        e => LinkError::Unreachable { broker, reason: e.to_string() },
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
