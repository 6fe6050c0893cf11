//! Entering who is here into the ledger.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::agenda::Taken;
use super::engine::{Failure, Session};
use super::ledger::{Client, ClientChange, Lease, Turn, UserChange};
use super::{Broker, topic_of};
use crate::config::JoinLeave;
use crate::hub::Inner;
use crate::protocol::centrifuge::ClientInfo;
use crate::user::UserId;

/// What this node has entered, over all sessions.
#[derive(Debug)]
pub(super) struct Entered {
    losses: u64,
    users: HashMap<UserId, (Arc<str>, usize)>,
    clients: HashMap<Client, Arc<ClientInfo>>,
    /// Those that are entered anew after all was lost: nobody was told that they left.
    quiet_users: HashSet<UserId>,
    quiet_clients: HashSet<Client>,
    /// Those of which no answer came yet.
    unsure: HashMap<Client, Arc<ClientInfo>>,
    /// What the broker refused, and when it is tried again.
    refused: (Vec<UserId>, Vec<Client>),
    retry_at: Instant,
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
        let lease = ledger.lease().clone();
        if !lease.is_held {
            // What stands under no lease would never be cleared away.
            ledger.held.notified().await;
            continue;
        }
        if entered.losses != lease.losses {
            entered.begin_anew(broker, &lease);
        }
        tokio::select! {
            users = ledger.users.take(BATCH) => {
                enter_users(hub, broker, session, entered, users).await?;
            }
            clients = ledger.clients.take(BATCH) => {
                enter_clients(hub, broker, session, entered, clients).await?;
            }
            () = ledger.held.notified() => {}
            () = tokio::time::sleep_until(entered.retry_at), if entered.has_refused() => {
                entered.retry(broker);
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
        change: &UserChange,
        Turn { is_turn, present }: Turn,
    ) {
        broker.ledger.set_present(present);
        let was_here = match change.connections {
            Some(connections) => {
                let entry = (change.name.clone(), connections);
                let had = self.users.insert(change.user.clone(), entry);
                had.is_some_and(|(_, connections)| connections != PERHAPS)
            }
            None => self.users.remove(&change.user).is_some(),
        };
        let is_quiet = self.quiet_users.remove(&change.user) && change.connections.is_some();
        match change.connections {
            _ if is_quiet => {}
            _ if is_turn => hub.tell_turn(change, present),
            Some(_) if !was_here => hub.tell_alone(change, present),
            _ => {}
        }
    }

    /// What is to be entered of a connection on a channel, if anything.
    fn change_of(&self, hub: &Inner, lease: &Lease, client: &Client) -> Option<ClientChange> {
        let (channel, name) = client;
        let join_leave = hub.config.namespace(channel)?.join_leave;
        let here = hub.channels.with(channel, |_, state| state.client(name)).flatten();
        let had = self.clients.get(client).or(self.unsure.get(client));
        let (is_here, info) = (here.is_some(), here.or(had.cloned())?);
        let connections =
            hub.channels.with(channel, |_, state| state.connections_of(&info.user)).unwrap_or(0);
        let is_known =
            is_here == self.clients.contains_key(client) && !self.unsure.contains_key(client);
        (!is_known).then(|| ClientChange {
            node: lease.name.clone(),
            topic: topic_of(hub, channel),
            client: client.clone(),
            info,
            is_here,
            connections,
            join_leave: if self.quiet_clients.contains(client) {
                JoinLeave::Off
            } else {
                join_leave
            },
        })
    }

    pub(super) fn new() -> Self {
        Self {
            losses: 0,
            users: HashMap::new(),
            clients: HashMap::new(),
            quiet_users: HashSet::new(),
            quiet_clients: HashSet::new(),
            unsure: HashMap::new(),
            refused: Default::default(),
            retry_at: Instant::now(),
        }
    }

    /// All that stood under the lost lease is to be entered again.
    fn begin_anew(&mut self, broker: &Broker, lease: &Lease) {
        self.losses = lease.losses;
        (self.quiet_users, self.quiet_clients) = Default::default();
        for (user, _) in self.users.drain() {
            if lease.is_quiet {
                self.quiet_users.insert(user.clone());
            }
            broker.ledger.users.add(user);
        }
        for (client, _) in self.clients.drain() {
            if lease.is_quiet {
                self.quiet_clients.insert(client.clone());
            }
            broker.ledger.clients.add(client);
        }
    }

    fn has_refused(&self) -> bool {
        !self.refused.0.is_empty() || !self.refused.1.is_empty()
    }

    /// Puts aside what was refused: tried again at once, it would be refused again.
    fn put_aside(&mut self, users: Vec<UserId>, clients: Vec<Client>) {
        if !self.has_refused() {
            self.retry_at = Instant::now() + RETRY;
        }
        self.refused.0.extend(users);
        self.refused.1.extend(clients);
    }

    fn retry(&mut self, broker: &Broker) {
        self.refused.0.drain(..).for_each(|user| broker.ledger.users.add(user));
        self.refused.1.drain(..).for_each(|client| broker.ledger.clients.add(client));
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
    for change in &changes {
        // Perhaps it is entered though no answer comes, so that its leave must be entered too.
        let perhaps = || (change.name.clone(), PERHAPS);
        entered.users.entry(change.user.clone()).or_insert_with(perhaps);
    }
    let turns = session.enter_users(&changes).await?;
    let mut refused = Vec::new();
    for (change, turn) in changes.into_iter().zip(turns) {
        match turn {
            Ok(turn) => entered.note_user(hub, broker, &change, turn),
            Err(refusal) => {
                tracing::debug!(%refusal, "the broker does not take who is here");
                refused.push(change.user);
            }
        }
    }
    entered.put_aside(refused, Vec::new());
    taken.done_but(Vec::new());
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
    for change in changes.iter().filter(|change| change.is_here) {
        // Perhaps it is entered though no answer comes, so that its leave must be entered too.
        entered.unsure.insert(change.client.clone(), change.info.clone());
    }
    let done = session.enter_clients(&changes).await?;
    let mut refused = Vec::new();
    for (change, done) in changes.into_iter().zip(done) {
        entered.unsure.remove(&change.client);
        entered.quiet_clients.remove(&change.client);
        match done {
            Ok(()) if change.is_here => drop(entered.clients.insert(change.client, change.info)),
            Ok(()) => drop(entered.clients.remove(&change.client)),
            Err(refusal) => {
                tracing::debug!(%refusal, "the broker does not take who is on a channel");
                refused.push(change.client);
            }
        }
    }
    entered.put_aside(Vec::new(), refused);
    taken.done_but(Vec::new());
    Ok(())
}

/// Changes that are entered at once.
const BATCH: usize = 256;

/// Stands for the connections of a user that is perhaps entered.
const PERHAPS: usize = usize::MAX;

/// Time until what was refused is tried again.
const RETRY: Duration = Duration::from_secs(1);
