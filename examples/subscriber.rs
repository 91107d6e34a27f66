//! A subscriber as a customer would write it: prints every alert of every device below a prefix, and drops what it has seen.
//!
//!     cargo run --example subscriber -- 127.0.0.1 1883 ckaad
//!
//! `./dev demo` in another terminal gives it something to print.

use ckaad_edge::events::{Anomaly, ChangeKind, CloudEvent};
use ckaad_edge::mqtt::{MqttConfig, Subscriber};
use std::collections::HashSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().unwrap_or_else(|| "127.0.0.1".into());
    let port = arguments.next().map_or(Ok(1883), |port| port.parse())?;
    let prefix = arguments.next().unwrap_or_else(|| "ckaad".into());
    let config = MqttConfig::plain(&host, port, &format!("subscriber-{}", std::process::id()));
    let mut subscriber = Subscriber::connect(&config, &format!("{prefix}/#")).await?;
    // Delivery is at least once; the event's id tells what came before.
    let mut seen = HashSet::new();
    while let Some(message) = subscriber.next().await {
        if !message.topic.ends_with("/anomaly") {
            continue;
        }
        let event: CloudEvent<Anomaly> = serde_json::from_slice(&message.payload)?;
        if !seen.insert(event.id) {
            continue;
        }
        let Anomaly { camera, frame_id, score, threshold, .. } = event.data;
        match event.r#type {
            ChangeKind::Opened => println!("{camera}: {frame_id} is defective, {score:.3} from {threshold:.3}"),
            ChangeKind::Updated => println!("{camera}: {frame_id} as well, {score:.3}"),
            ChangeKind::Closed => println!("{camera}: good again at {frame_id}"),
        }
    }
    Ok(())
}
