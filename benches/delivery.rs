//! What an event costs behind the verdict: into the outbox, and from there to the broker's acknowledgement.
//!
//!     cargo bench -p ckaad-edge --bench delivery
//!
//! The files lie where `TMPDIR` says: a sync costs what that disk takes for it. The second part starts mosquitto.

use ckaad_edge::events::Topics;
use ckaad_edge::mqtt::{Limits, Message, MqttConfig, Outbox, Priority, Protocol, Session, StoreHandle};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

const LIMITS: Limits = Limits { max_bytes: 256 << 20 };
/// About an anomaly event.
const EVENT_BYTES: usize = 1200;

fn event(n: usize) -> Message {
    Message {
        priority: Priority::Opened,
        topic: "bench/camera/cam/anomaly".into(),
        content_type: "application/json".into(),
        event_id: n.to_string(),
        payload: vec![b'x'; EVENT_BYTES],
    }
}

/// One transaction an event, as it was before the outbox had a thread, and one for all that wait.
fn outbox(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut group = c.benchmark_group("outbox, an event");
    for together in [1, 8, 64] {
        let (mut outbox, trouble) = Outbox::open(&dir.path().join(format!("{together}.sqlite")), LIMITS);
        assert!(trouble.is_none(), "{trouble:?}");
        group.throughput(Throughput::Elements(together as u64));
        group.bench_function(format!("{together} a transaction"), |b| {
            let events = || (0..together).map(event).collect::<Vec<_>>();
            b.iter_batched(events, |events| outbox.put(events, vec![]), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Killed with its guard.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn broker(dir: &std::path::Path) -> (Broker, u16) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a free port").port();
    let config = dir.join("mosquitto.conf");
    std::fs::write(
        &config,
        format!("user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"),
    )
    .expect("the folder can be written");
    let mut command = ckaad_testing::program("mosquitto");
    let child =
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("mosquitto starts");
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    (Broker(child), port)
}

/// From the outbox to the broker's acknowledgement, and out of the outbox again.
fn delivery(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (_broker, port) = broker(dir.path());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (store, mut thread) = StoreHandle::new(dir.path().join("delivery.sqlite"), LIMITS);
    std::thread::spawn(move || thread.work());
    let config = MqttConfig {
        host: "127.0.0.1".into(),
        port,
        protocol: Protocol::V5,
        client_id: "bench".into(),
        username: None,
        password_file: None,
        tls: None,
        keep_alive: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        reconnect_max: Duration::from_secs(1),
        max_packet_bytes: 8 << 20,
    };
    let topics = Topics::new("bench").expect("a plain prefix");
    let (mut session, handle) = Session::new(config, topics, uuid::Uuid::now_v7(), store.clone());
    let session = runtime.spawn(async move { session.run().await });
    let delivered = || {
        while store.waiting() > 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    drop(store.put(vec![event(0)], vec![]));
    delivered();
    let mut group = c.benchmark_group("from put to acknowledged");
    for events in [1, 100] {
        group.throughput(Throughput::Elements(events as u64));
        group.bench_function(format!("{events} at once"), |b| {
            b.iter(|| {
                (0..events).for_each(|n| drop(store.put(vec![event(n)], vec![])));
                delivered();
            });
        });
    }
    group.finish();
    handle.stop(Duration::from_secs(1));
    runtime.block_on(session).expect("the session ends");
}

criterion_group!(benches, outbox, delivery);
criterion_main!(benches);
