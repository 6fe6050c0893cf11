//! Orders on their way through the broker: every node has those of the user's connections that are its own
//! carry them out, and the one that was asked says what its own made of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::Broker;
use super::envelope::{self, RemoteOrder};
use crate::close::CloseReason;
use crate::hub::Inner;
use crate::hub::order::{Act, OrderError, PATIENCE, Whom};
use crate::receipt::Receipt;
use crate::ring::Load;
use crate::user::UserId;

type Outcome = Result<usize, OrderError>;

/// Orders of this node that have not come back to it yet.
#[derive(Debug, Default)]
pub(super) struct Orders {
    last: AtomicU64,
    given: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
}

impl Orders {
    fn given(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
        // A panic beside it leaves no order half noted.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Has a user's connections on all nodes do something; says how many of this node did.
    pub(crate) async fn order(&self, hub: &Inner, user: &UserId, whom: Whom, act: Act) -> Outcome {
        let number = self.orders.last.fetch_add(1, Ordering::Relaxed);
        let (sender, outcome) = oneshot::channel();
        self.orders.given().insert(number, sender);
        let _forget = Forget { orders: &self.orders, number };
        let (node, user) = (hub.uid.clone(), user.clone());
        let order = RemoteOrder { node, number, user, whom, act };
        self.send_to(hub, &order.user, envelope::order_body(&order)).await?;
        if hub.registry.targets(&order.user).is_none() {
            return Ok(0);
        }
        match tokio::time::timeout(PATIENCE, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(OrderError::Unanswered),
        }
    }

    /// Closes a user's connections on all nodes.
    pub(crate) fn disconnect(
        &self,
        hub: &Inner,
        user: &UserId,
        reason: CloseReason,
    ) -> Receipt<usize> {
        let number = self.orders.last.fetch_add(1, Ordering::Relaxed);
        let (node, whom, act) = (hub.uid.clone(), Whom::default(), Act::Close(reason));
        let order = RemoteOrder { node, number, user: user.clone(), whom, act };
        self.send_to(hub, user, envelope::order_body(&order))
    }

    /// Has the connections of this node carry out an order that came.
    pub(super) async fn obey(&self, hub: &Arc<Inner>, order: RemoteOrder) {
        let RemoteOrder { node, number, user, whom, act } = order;
        let act = match act {
            Act::Close(reason) if whom.is_everyone() => {
                let room = hub.ring.room().wait(0).await;
                if let Some(targets) = hub.registry.targets(&user) {
                    hub.send(room, Load::Close(targets, reason));
                }
                return;
            }
            act => act,
        };
        let hub = hub.clone();
        // Its shards, and the channel that it may need, must not keep what comes after it.
        tokio::spawn(async move {
            let mut act = act;
            // Who unsubscribes waits too, so as not to overtake who subscribed; the shard says if it is not to
            // be had.
            match &mut act {
                Act::Subscribe(subscribe) => {
                    let seen = Instant::now();
                    let from = subscribe.recover.from.as_ref();
                    let _ = hub.followed(&subscribe.channel, from, seen).await;
                    subscribe.recover.seen = Some(seen);
                }
                Act::Unsubscribe(channel) => {
                    let _ = hub.followed(channel, None, Instant::now()).await;
                }
                Act::Close(_) | Act::Greet(_) | Act::Refresh(_) => {}
            }
            let room = hub.ring.room().wait(act.size()).await;
            let outcome = hub.order_here(room, &user, whom, act).await;
            let Some(broker) = hub.broker.as_ref().filter(|_| node == hub.uid) else { return };
            if let Some(sender) = broker.orders.given().remove(&number) {
                let _ = sender.send(outcome);
            }
        });
    }
}

/// Forgets an order that nobody waits for any more.
struct Forget<'a> {
    orders: &'a Orders,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.orders.given().remove(&self.number);
    }
}
