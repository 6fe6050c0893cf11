//! Entering who is here into the ledger, and clearing away what dead nodes have left there.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use super::engine::{Failure, Session};
use super::ledger::{Client, ClientChange, Turn, UserChange};
use super::{Broker, topic_of};
use crate::config::JoinLeave;
use crate::hub::Inner;
use crate::protocol::centrifuge::ClientInfo;
use crate::user::UserId;

/// What this node has entered, over all sessions.
#[derive(Debug, Default)]
pub(super) struct Entered {
    losses: u64,
    users: HashMap<UserId, (Arc<str>, usize)>,
    clients: HashMap<Client, Arc<ClientInfo>>,
}

/// Enters what changes for as long as the session lasts, and all that there is after a lease was lost.
pub(super) async fn run(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
    entered: &mut Entered,
) -> Result<Infallible, Failure> {
    broker.health.trusted().await;
    let ledger = &broker.ledger;
    loop {
        let losses = ledger.lease().losses;
        if entered.losses != losses {
            entered.begin_anew(broker, losses);
        }
        tokio::select! {
            users = ledger.users.take(BATCH) => {
                enter_users(hub, broker, session, entered, users).await?;
            }
            clients = ledger.clients.take(BATCH) => {
                enter_clients(hub, broker, session, entered, clients).await?;
            }
            () = ledger.lost.notified() => {}
            dead = ledger.dead.take(1) => {
                for node in dead {
                    clear_away(hub, session, &node).await?;
                }
            }
        }
    }
}

impl Entered {
    /// All that stood under the lost lease is to be entered again.
    fn begin_anew(&mut self, broker: &Broker, losses: u64) {
        self.losses = losses;
        self.users.drain().for_each(|(user, _)| broker.ledger.users.add(user));
        self.clients.drain().for_each(|(client, _)| broker.ledger.clients.add(client));
    }
}

async fn enter_users(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
    entered: &mut Entered,
    users: Vec<UserId>,
) -> Result<(), Failure> {
    let lease = broker.ledger.lease().clone();
    let change = |user: UserId| {
        let here = hub.registry.presence(&user);
        let had = entered.users.get(&user);
        let name = here.as_ref().or(had).map(|(name, _)| name.clone())?;
        (here.as_ref() != had).then(|| {
            let connections = here.map(|(_, connections)| connections);
            UserChange { node: lease.name.clone(), user, name, connections }
        })
    };
    let changes: Vec<_> = users.into_iter().filter_map(change).collect();
    let turns = session.enter_users(&changes).await;
    let turns = turns.inspect_err(|_| {
        // Perhaps they are entered, which does no harm.
        changes.iter().for_each(|change| broker.ledger.users.add(change.user.clone()));
    })?;
    for (change, turn) in changes.into_iter().zip(turns) {
        let Turn { is_turn, present } = match turn {
            Ok(turn) => turn,
            Err(refusal) => {
                tracing::warn!(%refusal, "the broker does not take who is here");
                broker.ledger.users.add(change.user);
                return Err(Failure::new(refusal.to_string()));
            }
        };
        broker.ledger.set_present(present);
        let was_here = match change.connections {
            Some(connections) => {
                let entry = (change.name.clone(), connections);
                entered.users.insert(change.user.clone(), entry).is_some()
            }
            None => entered.users.remove(&change.user).is_some(),
        };
        let is_told = is_turn && !(lease.is_quiet && change.connections.is_some());
        match (is_told, change.connections) {
            (true, _) => hub.tell_turn(&change, present),
            (false, Some(_)) if !was_here => hub.tell_alone(&change, present),
            _ => {}
        }
    }
    Ok(())
}

async fn enter_clients(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
    entered: &mut Entered,
    clients: Vec<Client>,
) -> Result<(), Failure> {
    let lease = broker.ledger.lease().clone();
    let change = |client: Client| {
        let channel = client.0.clone();
        let join_leave = hub.config.namespace(&channel)?.join_leave;
        let here = hub.channels.with(&channel, |_, state| state.client(&client.1)).flatten();
        let had = entered.clients.get(&client);
        let (is_here, info) = (here.is_some(), here.or(had.cloned())?);
        let connections =
            hub.channels.with(&channel, |_, state| state.connections_of(&info.user)).unwrap_or(0);
        let join_leave = if lease.is_quiet && is_here { JoinLeave::Off } else { join_leave };
        (is_here != had.is_some()).then(|| ClientChange {
            node: lease.name.clone(),
            topic: topic_of(hub, &channel),
            client,
            info,
            is_here,
            connections,
            join_leave,
        })
    };
    let changes: Vec<_> = clients.into_iter().filter_map(change).collect();
    let done = session.enter_clients(&changes).await;
    let done = done.inspect_err(|_| {
        changes.iter().for_each(|change| broker.ledger.clients.add(change.client.clone()));
    })?;
    for (change, done) in changes.into_iter().zip(done) {
        if let Err(refusal) = done {
            tracing::warn!(%refusal, "the broker does not take who is on a channel");
            broker.ledger.clients.add(change.client);
            return Err(Failure::new(refusal.to_string()));
        }
        if change.is_here {
            entered.clients.insert(change.client, change.info);
        } else {
            entered.clients.remove(&change.client);
        }
    }
    Ok(())
}

/// Clears away what stands under a lost lease, unless another node does that already.
async fn clear_away(hub: &Arc<Inner>, session: &Session, node: &Arc<str>) -> Result<(), Failure> {
    if !session.claim(node).await? {
        return Ok(());
    }
    tracing::info!(node = &**node, "a node is gone; clearing away what it had entered");
    let (mut users, mut clients) = (session.users_of(node).await?, session.clients_of(node).await?);
    while !users.is_empty() {
        let some: Vec<_> = users.drain(..BATCH.min(users.len())).collect();
        let turns = session.enter_users(&some).await?;
        for (change, turn) in some.iter().zip(turns) {
            if let Ok(Turn { is_turn: true, present }) = turn {
                hub.tell_turn(change, present);
            }
        }
    }
    for change in &mut clients {
        let (channel, _) = &change.client;
        change.topic = topic_of(hub, channel);
        change.join_leave =
            hub.config.namespace(channel).map_or(JoinLeave::Off, |it| it.join_leave);
    }
    while !clients.is_empty() {
        let some: Vec<_> = clients.drain(..BATCH.min(clients.len())).collect();
        session.enter_clients(&some).await?;
    }
    session.retire(node, true).await
}

/// Changes that are entered at once.
const BATCH: usize = 256;
