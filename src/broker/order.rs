//! Orders on their way through the broker: every node has those of the user's connections that are its own
//! carry them out, and the one that was asked says what its own made of it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Broker;
use super::envelope::{self, RemoteOrder};
use super::pending::Pending;
use crate::close::CloseReason;
use crate::hub::Inner;
use crate::hub::order::{Act, OrderError, PATIENCE, Whom};
use crate::receipt::Receipt;
use crate::ring::Load;
use crate::user::UserId;

type Outcome = Result<usize, OrderError>;

/// Orders of this node that have not come back to it yet.
pub(super) type Orders = Pending<Option<oneshot::Sender<Outcome>>>;

impl Broker {
    /// Has a user's connections on all nodes do something; says how many of this node did.
    pub(crate) async fn order(&self, hub: &Inner, user: &UserId, whom: Whom, act: Act) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        let ticket = self.orders.wait(Some(sender));
        let (uid, user) = (hub.uid.clone(), user.clone());
        let order = RemoteOrder { uid, number: ticket.number(), user, whom, act };
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
        let number = self.orders.next();
        let (uid, whom, act) = (hub.uid.clone(), Whom::default(), Act::Close(reason));
        let order = RemoteOrder { uid, number, user: user.clone(), whom, act };
        self.send_to(hub, user, envelope::order_body(&order))
    }

    /// Has the connections of this node carry out an order that came.
    pub(super) async fn obey(&self, hub: &Arc<Inner>, order: RemoteOrder) {
        let RemoteOrder { uid, number, user, whom, act } = order;
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
            let Some(broker) = hub.broker.as_ref().filter(|_| uid == hub.uid) else { return };
            broker.orders.tell(number, |sender| {
                // It may just have given up.
                sender.take().map(|sender| sender.send(outcome));
            });
        });
    }
}
