//! Entering at the broker who is here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Broker;
use super::engine::{Failure, Session};
use super::entered::Entered;
use super::presence::{Client, Presence};
use super::reap::RETURN;
use crate::agenda::Taken;
use crate::hub::Inner;
use crate::user::UserId;

/// Enters what changes for as long as the session lasts, and all that there is after a lease was lost.
pub(super) async fn run(
    hub: &Arc<Inner>,
    broker: &Broker,
    session: &Session,
    entered: &mut Entered,
) -> Result<Infallible, Failure> {
    broker.health.trusted().await;
    let presence = &broker.presence;
    let (refused, returned) = (Aside::new(presence, RETRY), Aside::new(presence, RETURN));
    let mut register = Register { hub, presence, session, entered, refused, returned };
    loop {
        let lease = presence.lease().clone();
        if !lease.is_sure {
            // What stands under no lease would never be cleared away.
            presence.held.notified().await;
            continue;
        }
        register.entered.begin_anew(presence, &lease);
        let (refused, returned) = (register.refused.due(), register.returned.due());
        tokio::select! {
            users = presence.users.take(BATCH) => register.enter_users(users).await?,
            clients = presence.clients.take(BATCH) => register.enter_clients(clients).await?,
            () = presence.held.notified() => {}
            () = sleep_until(refused) => register.refused.retry(),
            () = sleep_until(returned) => register.returned.retry(),
        }
    }
}

struct Register<'a> {
    hub: &'a Inner,
    presence: &'a Presence,
    session: &'a Session,
    entered: &'a mut Entered,
    refused: Aside<'a>,
    /// What was entered again after all was lost, and may have gone meanwhile.
    returned: Aside<'a>,
}

impl Register<'_> {
    async fn enter_users(&mut self, taken: Taken<'_, UserId>) -> Result<(), Failure> {
        let lease = self.presence.lease().clone();
        let users = taken.items().iter();
        let changes = users.filter_map(|user| self.entered.user_change(self.hub, &lease, user));
        let changes: Vec<_> = changes.collect();
        changes.iter().for_each(|change| self.entered.send_user(change));
        let turns = self.session.enter_users(&changes).await?;
        for (change, turn) in changes.into_iter().zip(turns) {
            match turn {
                Ok(turn) => {
                    self.presence.set_present(turn.present);
                    if self.entered.note_user(self.hub, &change, turn) {
                        self.returned.put(|aside| aside.users.push(change.user));
                    }
                }
                Err(refusal) => {
                    tracing::debug!(%refusal, "the broker does not take who is here");
                    self.refused.put(|aside| aside.users.push(change.user));
                }
            }
        }
        taken.done_but(Vec::new());
        Ok(())
    }

    async fn enter_clients(&mut self, taken: Taken<'_, Client>) -> Result<(), Failure> {
        let lease = self.presence.lease().clone();
        let clients = taken.items().iter();
        let changes =
            clients.filter_map(|client| self.entered.client_change(self.hub, &lease, client));
        let changes: Vec<_> = changes.collect();
        changes.iter().for_each(|change| self.entered.send_client(change));
        let done = self.session.enter_clients(&changes).await?;
        for (change, done) in changes.into_iter().zip(done) {
            match done {
                Ok(()) => {
                    let client = change.client.clone();
                    if self.entered.note_client(change) {
                        self.returned.put(|aside| aside.clients.push(client));
                    }
                }
                Err(refusal) => {
                    tracing::debug!(%refusal, "the broker does not take who is on a channel");
                    self.refused.put(|aside| aside.clients.push(change.client));
                }
            }
        }
        taken.done_but(Vec::new());
        Ok(())
    }
}

/// What is to be looked at again after a time. Dropped, it is on the agenda at once.
struct Aside<'a> {
    presence: &'a Presence,
    users: Vec<UserId>,
    clients: Vec<Client>,
    delay: Duration,
    due: Instant,
}

impl<'a> Aside<'a> {
    fn new(presence: &'a Presence, delay: Duration) -> Self {
        Self { presence, users: Vec::new(), clients: Vec::new(), delay, due: Instant::now() }
    }

    /// When the first of it is due, if there is any.
    fn due(&self) -> Option<Instant> {
        (!self.users.is_empty() || !self.clients.is_empty()).then_some(self.due)
    }

    fn put(&mut self, put: impl FnOnce(&mut Self)) {
        if self.due().is_none() {
            self.due = Instant::now() + self.delay;
        }
        put(self);
    }

    fn retry(&mut self) {
        self.users.drain(..).for_each(|user| self.presence.users.add(user));
        self.clients.drain(..).for_each(|client| self.presence.clients.add(client));
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.retry();
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Changes that are entered at once.
const BATCH: usize = 256;

/// Time until what was refused is tried again: at once it would be refused again.
const RETRY: Duration = Duration::from_secs(1);
