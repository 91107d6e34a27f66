use super::super::scripted::{MOMENT, Scripted};
use super::super::subscriber::Subscriber;
use super::*;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubAck, SubscribeReasonCode};
use rumqttc::v5::mqttbytes::{QoS, v5};
use std::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

#[tokio::test]
async fn the_handshake_says_what_was_configured() {
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("secret");
    fs::write(&password_file, "right\r\nonly the first line counts\n").unwrap();
    let broker = Scripted::new().await;
    let secret = MqttConfig {
        username: Some("press".into()),
        password_file: Some(password_file),
        max_packet_bytes: 12_345,
        ..broker.config()
    };
    let _link = Link::open(&secret, None).unwrap();
    let peer = broker.accept().await;
    assert_eq!((peer.connect.client_id.as_str(), peer.connect.keep_alive, peer.connect.clean_start), ("box", 30, true));
    assert_eq!(peer.connect.properties.unwrap().max_packet_size, Some(12_345));
    let login = peer.login.unwrap();
    assert_eq!((login.username.as_str(), login.password.as_str()), ("press", "right"));
    assert_eq!(peer.will, None);

    // A name without a password, and neither.
    let named = MqttConfig { username: Some("press".into()), ..broker.config() };
    let _link = Link::open(&named, None).unwrap();
    let login = broker.accept().await.login.unwrap();
    assert_eq!((login.username.as_str(), login.password.as_str()), ("press", ""));
    let _link = Link::open(&broker.config(), None).unwrap();
    assert!(broker.accept().await.login.is_none());
}

/// The bytes of CONNECT as MQTT 3.1.1 has them.
#[tokio::test]
async fn the_handshake_of_mqtt_311() {
    let broker = Scripted::new().await;
    let config = MqttConfig { protocol: Protocol::V311, username: Some("me".into()), ..broker.config() };
    let _link = Link::open(&config, Some(("w".into(), b"gone".to_vec()))).unwrap();
    let mut stream = broker.stream().await;
    let mut bytes = [0; 30];
    stream.read_exact(&mut bytes).await.unwrap();
    // Flags: user name, will retained with QoS 1, clean session; then 30 s.
    assert_eq!(&bytes[..12], b"\x10\x1c\x00\x04MQTT\x04\xae\x00\x1e");
    assert_eq!(&bytes[12..], b"\x00\x03box\x00\x01w\x00\x04gone\x00\x02me");
}

#[tokio::test]
async fn a_refusal_says_whether_the_name_is_wrong_or_the_broker_will_not() {
    use v5::ConnectReturnCode::{BadUserNamePassword, NotAuthorized, ServerBusy};
    let broker = Scripted::new().await;
    let at = format!("127.0.0.1:{}", broker.config().port);
    let named = format!("the broker {at} refused the user name or the password");
    let refused = format!("the broker {at} refused the connection");
    for (code, sentence) in [
        (BadUserNamePassword, format!("{named} (BadUserNamePassword)")),
        (NotAuthorized, format!("{named} (NotAuthorized)")),
        (ServerBusy, format!("{refused} (ServerBusy)")),
    ] {
        let config = broker.config();
        let probing = tokio::spawn(async move { probe(&config).await });
        broker.accept().await.answer(code, None).await;
        assert_eq!(probing.await.unwrap().unwrap_err().to_string(), sentence);
    }
    let old = MqttConfig { protocol: Protocol::V311, ..broker.config() };
    for (code, sentence) in [
        (4, format!("{named} (BadUserNamePassword)")),
        (5, format!("{named} (NotAuthorized)")),
        (3, format!("{refused} (ServiceUnavailable)")),
    ] {
        let config = old.clone();
        let probing = tokio::spawn(async move { probe(&config).await });
        let mut stream = broker.stream().await;
        stream.write_all(&[0x20, 2, 0, code]).await.unwrap();
        assert_eq!(probing.await.unwrap().unwrap_err().to_string(), sentence);
    }
}

#[tokio::test]
async fn a_broker_that_is_away_or_silent_cannot_be_reached() {
    let broker = Scripted::new().await;
    let config = MqttConfig { connect_timeout: Duration::from_millis(1), ..broker.config() };
    let old = MqttConfig { protocol: Protocol::V311, ..config.clone() };
    let at = format!("the broker 127.0.0.1:{} cannot be reached: ", config.port);
    for config in [&config, &old] {
        let began = std::time::Instant::now();
        assert_eq!(probe(config).await.unwrap_err().to_string(), format!("{at}no answer in time"));
        // Less than a second is a second.
        assert!((0.9..8.0).contains(&began.elapsed().as_secs_f64()));
    }
    // The attempts above still lie in the queue.
    drop((broker.stream().await, broker.stream().await));
    // One that speaks another language.
    for config in [config.clone(), old.clone()] {
        let probing = tokio::spawn(async move { probe(&config).await });
        let mut stream = broker.stream().await;
        stream.write_all(&[0; 16]).await.unwrap();
        let why = probing.await.unwrap().unwrap_err().to_string();
        assert!(why.starts_with(&at) && !why.ends_with("no answer in time"), "{why}");
    }
    // Bound, so that nobody else gets the port, and without anybody who listens.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = bound.local_addr().unwrap().port();
    let at = format!("the broker 127.0.0.1:{port} cannot be reached: ");
    for config in [MqttConfig { port, ..config }, MqttConfig { port, ..old }] {
        let why = probe(&config).await.unwrap_err().to_string();
        assert!(why.starts_with(&at) && why.contains("refused"), "{why}");
    }
}

#[tokio::test]
async fn a_probe_has_a_name_of_its_own_and_says_goodbye() {
    let broker = Scripted::new().await;
    let config = broker.config();
    let probing = tokio::spawn(async move { probe(&config).await });
    let mut peer = broker.welcome().await;
    assert_eq!((peer.connect.client_id.as_str(), &peer.will), ("box-check", &None));
    peer.goodbye().await;
    probing.await.unwrap().unwrap();
}

/// Without a goodbye, so that the broker publishes the will.
#[tokio::test]
async fn a_link_that_is_dropped_breaks_the_connection() {
    let broker = Scripted::new().await;
    let (link, mut events) = Link::open(&broker.config(), None).unwrap();
    let mut stream = broker.stream().await;
    stream.write_all(&[0x20, 3, 0, 0, 0]).await.unwrap();
    assert!(matches!(events.recv().await, Some(Event::Connected { max_packet_bytes: None })));
    drop(link);
    let mut rest = vec![];
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest[0], 0x10, "CONNECT");
    assert_eq!(rest.len(), 2 + usize::from(rest[1]), "and nothing behind it");
}

#[tokio::test]
async fn files_of_a_secure_connection_are_named_when_they_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let make = |name: &str| {
        let (key, certificate) = (folder.path().join(format!("{name}.key")), folder.path().join(format!("{name}.pem")));
        let mut openssl = ckaad_testing::program("openssl");
        openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '));
        openssl.args(["-subj", &format!("/CN={name}"), "-keyout"]).arg(&key).arg("-out").arg(&certificate);
        assert!(openssl.output().unwrap().status.success());
        (certificate, key)
    };
    let (ours, strangers) = (make("ours"), make("stranger"));
    let empty = file("empty.pem", "");
    let broken = file("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    let nowhere = folder.path().join("nowhere.pem");
    let said = |tls: TlsFiles, password_file: Option<PathBuf>| {
        let config = MqttConfig {
            host: "localhost".into(),
            port: 1,
            protocol: Protocol::V5,
            client_id: "box".into(),
            username: None,
            password_file,
            tls: Some(tls),
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(1),
            max_packet_bytes: 1000,
        };
        Link::open(&config, None).err().unwrap().to_string()
    };
    let authority = |ca: &PathBuf| TlsFiles { ca: Some(ca.clone()), client: None };
    let why = said(TlsFiles::default(), Some(nowhere.clone()));
    assert!(why.starts_with(&format!("cannot read the password file {}: No such file", nowhere.display())), "{why}");
    let why = said(authority(&nowhere), None);
    assert!(why.starts_with(&format!("cannot read the certificate authority {}: No", nowhere.display())), "{why}");
    let why = said(authority(&broken), None);
    assert!(why.starts_with(&format!("cannot read the certificate authority {}: ", broken.display())), "{why}");
    assert_eq!(
        said(authority(&empty), None),
        format!("the certificate authority {} holds no certificate that can be used", empty.display())
    );
    let shown = |certificate: &PathBuf, key: &PathBuf| TlsFiles {
        ca: Some(ours.0.clone()),
        client: Some((certificate.clone(), key.clone())),
    };
    let why = said(shown(&nowhere, &ours.1), None);
    assert!(why.starts_with(&format!("cannot read the client certificate {}: No", nowhere.display())), "{why}");
    let why = said(shown(&ours.0, &nowhere), None);
    assert!(why.starts_with(&format!("cannot read the client key {}: No", nowhere.display())), "{why}");
    let why = said(shown(&ours.0, &empty), None);
    assert!(why.starts_with(&format!("the client key {} cannot be used: ", empty.display())), "{why}");
    let why = said(shown(&ours.0, &strangers.1), None);
    assert!(why.starts_with(&format!("the client certificate {} cannot be used: ", ours.0.display())), "{why}");
}

#[tokio::test]
async fn a_subscriber_waits_for_its_subscription_and_ends_with_the_connection() {
    let broker = Scripted::new().await;
    let config = broker.config();
    let subscribing = tokio::spawn(async move { Subscriber::connect(&config, "a/#").await.map_err(|e| e.to_string()) });
    let mut peer = broker.welcome().await;
    let Some(Packet::Subscribe(asked)) = peer.next().await else { panic!("no SUBSCRIBE") };
    assert_eq!((asked.filters[0].path.as_str(), asked.filters[0].qos), ("a/#", QoS::AtLeastOnce));
    tokio::time::sleep(MOMENT).await;
    assert!(!subscribing.is_finished());
    let return_codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
    peer.send(Packet::SubAck(SubAck { pkid: asked.pkid, return_codes, properties: None })).await;
    let mut subscriber = subscribing.await.unwrap().unwrap();
    for topic in ["a/1", "a/2"] {
        peer.send(Packet::Publish(Publish::new(topic, QoS::AtMostOnce, "x", None))).await;
        let message = subscriber.next().await.unwrap();
        assert_eq!((message.topic.as_str(), message.payload.as_slice(), message.event_id), (topic, &b"x"[..], None));
    }
    drop(peer);
    assert!(subscriber.next().await.is_none());

    let config = broker.config();
    let subscribing = tokio::spawn(async move { Subscriber::connect(&config, "a/#").await.map_err(|e| e.to_string()) });
    broker.accept().await.answer(ConnectReturnCode::Banned, None).await;
    assert!(subscribing.await.unwrap().err().unwrap().ends_with("refused the connection (Banned)"));
}
