//! Entering at the broker who is here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Broker;
use super::engine::{Failure, Session};
use super::entered::Entered;
use super::presence::{Client, Presence};
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
    let mut register = Register { hub, presence, session, entered, refused: Refused::by(presence) };
    loop {
        let lease = presence.lease().clone();
        if !lease.is_held {
            // What stands under no lease would never be cleared away.
            presence.held.notified().await;
            continue;
        }
        register.entered.begin_anew(presence, &lease);
        let (retry_at, has_refused) = (register.refused.retry_at, !register.refused.is_empty());
        tokio::select! {
            users = presence.users.take(BATCH) => register.enter_users(users).await?,
            clients = presence.clients.take(BATCH) => register.enter_clients(clients).await?,
            () = presence.held.notified() => {}
            () = tokio::time::sleep_until(retry_at), if has_refused => register.refused.retry(),
        }
    }
}

struct Register<'a> {
    hub: &'a Inner,
    presence: &'a Presence,
    session: &'a Session,
    entered: &'a mut Entered,
    refused: Refused<'a>,
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
                    self.entered.note_user(self.hub, &change, turn);
                }
                Err(refusal) => {
                    tracing::debug!(%refusal, "the broker does not take who is here");
                    self.refused.put_aside(|refused| refused.users.push(change.user));
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
                Ok(()) => self.entered.note_client(change),
                Err(refusal) => {
                    tracing::debug!(%refusal, "the broker does not take who is on a channel");
                    self.refused.put_aside(|refused| refused.clients.push(change.client));
                }
            }
        }
        taken.done_but(Vec::new());
        Ok(())
    }
}

/// What the broker refused, and would again if it were tried at once. Dropped, it is on the agenda again.
struct Refused<'a> {
    presence: &'a Presence,
    users: Vec<UserId>,
    clients: Vec<Client>,
    retry_at: Instant,
}

impl<'a> Refused<'a> {
    fn by(presence: &'a Presence) -> Self {
        Self { presence, users: Vec::new(), clients: Vec::new(), retry_at: Instant::now() }
    }

    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.clients.is_empty()
    }

    fn put_aside(&mut self, put: impl FnOnce(&mut Self)) {
        if self.is_empty() {
            self.retry_at = Instant::now() + RETRY;
        }
        put(self);
    }

    fn retry(&mut self) {
        self.users.drain(..).for_each(|user| self.presence.users.add(user));
        self.clients.drain(..).for_each(|client| self.presence.clients.add(client));
    }
}

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        self.retry();
    }
}

/// Changes that are entered at once.
const BATCH: usize = 256;

/// Time until what was refused is tried again.
const RETRY: Duration = Duration::from_secs(1);
