use super::link::{Event, Incoming, Link, LinkError, MqttConfig};
use tokio::sync::mpsc;

/// A plain subscriber, as a customer of the agent would be. It does not connect again: when the connection is lost, the stream ends.
///
/// ```no_run
/// use ckaad_edge::mqtt::{MqttConfig, Subscriber};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = MqttConfig::plain("broker.local", 1883, "my-subscriber");
/// let mut alerts = Subscriber::connect(&broker, "ckaad/v1/+/camera/+/anomaly").await?;
/// while let Some(message) = alerts.next().await {
///     println!("{}: {} bytes", message.topic, message.payload.len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Subscriber {
    _link: Link,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Subscriber {
    /// Resolves when the broker has confirmed the subscription.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(config: &MqttConfig, filter: &str) -> Result<Subscriber, LinkError> {
        let (link, mut events) = Link::open(config, None)?;
        loop {
            match events.recv().await {
                Some(Event::Connected { .. }) => {
                    link.subscribe(filter);
                }
                Some(Event::Subscribed) => return Ok(Subscriber { _link: link, events }),
                Some(Event::Down(why)) => return Err(why),
                Some(_) => {}
                None => {
                    let broker = format!("{}:{}", config.host, config.port);
                    return Err(LinkError::Unreachable { broker, reason: "the client ended".into() });
                }
            }
        }
    }

    /// The next message; None when the connection is lost.
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            match self.events.recv().await? {
                Event::Incoming(message) => return Some(message),
                Event::Down(_) => return None,
                _ => {}
            }
        }
    }
}
