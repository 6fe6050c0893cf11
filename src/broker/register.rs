//! Entering who is here into the ledger, and clearing away what dead nodes have left there.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::Taken;
use super::engine::{Failure, Session};
use super::ledger::{Client, ClientChange, Lease, Turn, UserChange};
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
                for node in dead.items() {
                    clear_away(hub, session, node).await?;
                }
                dead.done_but(Vec::new());
            }
        }
    }
}

impl Entered {
    /// Takes note of a user that was entered, and tells of it what is to be told.
    fn note_user(
        &mut self,
        hub: &Inner,
        broker: &Broker,
        lease: &Lease,
        change: &UserChange,
        Turn { is_turn, present }: Turn,
    ) {
        broker.ledger.set_present(present);
        let was_here = match change.connections {
            Some(connections) => {
                let entry = (change.name.clone(), connections);
                self.users.insert(change.user.clone(), entry).is_some()
            }
            None => self.users.remove(&change.user).is_some(),
        };
        let is_told = is_turn && !(lease.is_quiet && change.connections.is_some());
        match change.connections {
            _ if is_told => hub.tell_turn(change, present),
            Some(_) if !was_here => hub.tell_alone(change, present),
            _ => {}
        }
    }

    /// What is to be entered of a connection on a channel, if anything.
    fn change_of(&self, hub: &Inner, lease: &Lease, client: &Client) -> Option<ClientChange> {
        let (channel, name) = client;
        let join_leave = hub.config.namespace(channel)?.join_leave;
        let here = hub.channels.with(channel, |_, state| state.client(name)).flatten();
        let had = self.clients.get(client);
        let (is_here, info) = (here.is_some(), here.or(had.cloned())?);
        let connections =
            hub.channels.with(channel, |_, state| state.connections_of(&info.user)).unwrap_or(0);
        (is_here != had.is_some()).then(|| ClientChange {
            node: lease.name.clone(),
            topic: topic_of(hub, channel),
            client: client.clone(),
            info,
            is_here,
            connections,
            join_leave: if lease.is_quiet && is_here { JoinLeave::Off } else { join_leave },
        })
    }

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
    taken: Taken<'_, UserId>,
) -> Result<(), Failure> {
    let lease = broker.ledger.lease().clone();
    let change = |user: &UserId| {
        let here = hub.registry.presence(user);
        let had = entered.users.get(user);
        let name = here.as_ref().or(had).map(|(name, _)| name.clone())?;
        (here.as_ref() != had).then(|| {
            let connections = here.map(|(_, connections)| connections);
            UserChange { node: lease.name.clone(), user: user.clone(), name, connections }
        })
    };
    let changes: Vec<_> = taken.items().iter().filter_map(change).collect();
    let turns = session.enter_users(&changes).await?;
    let mut refused = Vec::new();
    for (change, turn) in changes.into_iter().zip(turns) {
        match turn {
            Ok(turn) => entered.note_user(hub, broker, &lease, &change, turn),
            Err(refusal) => {
                tracing::debug!(%refusal, "the broker does not take who is here");
                refused.push(change.user);
            }
        }
    }
    pause_and_put_back(taken, refused).await;
    Ok(())
}

async fn enter_clients(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
    entered: &mut Entered,
    taken: Taken<'_, Client>,
) -> Result<(), Failure> {
    let lease = broker.ledger.lease().clone();
    let changes = taken.items().iter().filter_map(|client| entered.change_of(hub, &lease, client));
    let changes: Vec<_> = changes.collect();
    let done = session.enter_clients(&changes).await?;
    let mut refused = Vec::new();
    for (change, done) in changes.into_iter().zip(done) {
        match done {
            Ok(()) if change.is_here => drop(entered.clients.insert(change.client, change.info)),
            Ok(()) => drop(entered.clients.remove(&change.client)),
            Err(refusal) => {
                tracing::debug!(%refusal, "the broker does not take who is on a channel");
                refused.push(change.client);
            }
        }
    }
    pause_and_put_back(taken, refused).await;
    Ok(())
}

/// What was refused is tried again, though not at once.
async fn pause_and_put_back<T: Hash + Eq>(taken: Taken<'_, T>, refused: Vec<T>) {
    if !refused.is_empty() {
        tokio::time::sleep(RETRY).await;
    }
    taken.done_but(refused);
}

/// Clears away what stands under a lost lease, unless another node does that already.
async fn clear_away(hub: &Arc<Inner>, session: &Session, node: &Arc<str>) -> Result<(), Failure> {
    if !session.claim(node).await? {
        return Ok(());
    }
    tracing::info!(node = &**node, "a node is gone; clearing away what it had entered");
    let (users, mut clients) = (session.users_of(node).await?, session.clients_of(node).await?);
    for users in users.chunks(BATCH) {
        let turns = session.enter_users(users).await?;
        for (change, turn) in users.iter().zip(turns) {
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
    for clients in clients.chunks(BATCH) {
        session.enter_clients(clients).await?;
    }
    session.retire(node, true).await
}

/// Changes that are entered at once.
const BATCH: usize = 256;

/// Time until what was refused is tried again.
const RETRY: Duration = Duration::from_secs(1);
