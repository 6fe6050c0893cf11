//! The lease under which a node says who is on it, renewed every second.

use std::convert::Infallible;
use std::time::Duration;

use super::Broker;
use super::engine::{Failure, Session};
use crate::hub::Inner;

/// Renews the lease for as long as the node does not end.
pub(super) async fn run(
    hub: &Inner,
    broker: &Broker,
    session: &Session,
) -> Result<Infallible, Failure> {
    while !broker.presence.is_retired() {
        let (lease, is_held) = broker.presence.lease_to_renew();
        let renewal =
            session.renew((&lease, &hub.info()), is_held, hub.config.broker.lease).await?;
        broker.health.set_refusal(match renewal {
            Ok(renewal) => {
                broker.presence.renewed(renewal);
                None
            }
            // What needs no memory there goes on.
            Err(refusal) => Some(format!("it takes nothing: {refusal}")),
        });
        tokio::time::sleep(INTERVAL).await;
    }
    // Renewed once more, it would outlast the node.
    std::future::pending().await
}

/// Time between renewals: a lease outlasts several that fail.
const INTERVAL: Duration = Duration::from_secs(1);
