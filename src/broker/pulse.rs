//! What a node tells itself through the broker, every second, to see that it hears.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::Broker;
use super::engine::{Failure, Session};
use super::feed::Level;

/// Tells itself something again and again, and trusts the broker for as long as it comes back.
pub(super) async fn run(
    broker: &Broker,
    session: &Session,
    level: &Level,
) -> Result<Infallible, Failure> {
    broker.health.followed().await;
    loop {
        let (number, sent) = (broker.health.next_pulse(), Instant::now());
        session.pulse(number).await?;
        let heard = broker.health.heard(number, session.pulses().len());
        tokio::pin!(heard);
        while tokio::time::timeout(PATIENCE, &mut heard).await.is_err() {
            // What is held up here for a while is no fault of the broker's.
            if !level.is_held_up() {
                return Err(Failure::new("this node does not hear itself within 3 s"));
            }
            if sent.elapsed() > HELD_UP {
                broker.health.doubt_for("what came from it waits for room in the ring".to_owned());
            }
        }
        if broker.health.heard_after(sent.elapsed()) {
            tracing::info!("the broker is trusted");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Time between pulses, and how long one may take: with both a loss is known within 5 s.
const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);

/// How long what came may wait for the ring before the node is in doubt.
const HELD_UP: Duration = Duration::from_secs(10);
