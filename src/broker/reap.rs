//! Clearing away what stands under leases that have ended, by whichever node comes first.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::engine::{Failure, Fault, Session};
use super::presence::{ClientChange, Turn};
use super::{Broker, topic_of};
use crate::config::JoinLeave;
use crate::hub::Inner;

/// Clears away for as long as the session lasts.
pub(super) async fn run(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
) -> Result<Infallible, Failure> {
    broker.health.trusted().await;
    // While the broker was away all leases ended; who is alive comes back and renews its own first.
    tokio::time::sleep(RETURN).await;
    loop {
        let leases = broker.presence.to_reap.take(1).await;
        let mut left = Vec::new();
        for lease in leases.items() {
            let is_clear = match clear(hub, broker, session, lease).await {
                Ok(is_clear) => is_clear,
                Err(Fault::Failed(failure)) => return Err(failure),
                Err(Fault::Refused(refusal)) => {
                    tracing::debug!(%refusal, "the broker does not let what a node left be cleared away");
                    false
                }
            };
            if !is_clear {
                left.push(lease.clone());
            }
        }
        if !left.is_empty() {
            // Another node is at it, or the broker refuses.
            tokio::time::sleep(RETRY).await;
            left.retain(|lease| broker.presence.has_ended(lease));
        }
        leases.done_but(left);
    }
}

/// Clears away what stands under a lease; false if another node does, or something was refused.
async fn clear(
    hub: &Inner,
    broker: &Broker,
    session: &Session,
    lease: &str,
) -> Result<bool, Fault> {
    let uid = lease.rsplit_once('.').map_or(lease, |(uid, _)| uid);
    if uid == hub.uid {
        // One that this node had before, and what stands under it is being entered under another.
        tokio::time::sleep(RETURN).await;
        session.retire(lease, false).await?;
    }
    // Of a node that is alive nobody leaves by that.
    let is_alive = uid == hub.uid || broker.presence.nodes().iter().any(|node| node.uid() == uid);
    if !session.claim(lease, hub.config.broker.lease).await? {
        return Ok(false);
    }
    tracing::info!(lease, "clearing away what stands under a lease that has ended");
    let (users, clients) = (session.users_of(lease).await?, session.clients_of(lease).await?);
    let mut is_clear = true;
    for users in users.chunks(BATCH) {
        let turns = session.enter_users(users).await?;
        for (change, turn) in users.iter().zip(turns) {
            match turn {
                Ok(Turn { is_turn: true, present }) => hub.tell_turn(change, present),
                Ok(_) => {}
                Err(_) => is_clear = false,
            }
        }
    }
    let clients = clients.into_iter().map(|(client, info)| {
        let (channel, _) = &client;
        let namespace = hub.config.namespace(channel).filter(|_| !is_alive);
        let join_leave = namespace.map_or(JoinLeave::Off, |namespace| namespace.join_leave);
        let (lease, topic) = (lease.into(), topic_of(hub, channel));
        ClientChange { lease, topic, client, info, is_here: false, connections: 0, join_leave }
    });
    for clients in clients.collect::<Vec<_>>().chunks(BATCH) {
        is_clear &= session.enter_clients(clients).await?.iter().all(Result::is_ok);
    }
    if is_clear {
        session.retire(lease, true).await?;
    }
    Ok(is_clear)
}

/// Changes that are entered at once.
const BATCH: usize = 256;

/// Time that other nodes have to come back to a broker that was away: more than the longest pause between
/// their tries.
pub(super) const RETURN: Duration = Duration::from_secs(4);

/// Time until a lease is looked at again that another node clears away.
const RETRY: Duration = Duration::from_secs(5);
