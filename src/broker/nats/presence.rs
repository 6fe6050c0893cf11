//! Who is here, as NATS keeps it: a record a user, with what stands of it by lease, and one a connection on
//! a channel, under the name of its lease.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::error::JetStreamError;
use super::jetstream::Record;
use super::names::{self, Store};
use super::{Session, envelope};
use crate::broker::engine::{Failure, Fault, Refusal};
use crate::broker::presence::{Client, ClientChange, Turn, UserChange};
use crate::broker::user_record::UserRecord;
use crate::channel::post::Change;
use crate::config::JoinLeave;
use crate::protocol::centrifuge::ClientInfo;
use crate::protocol::json::encode;
use crate::user::UserId;

impl Session {
    /// Enters users.
    pub(in crate::broker) async fn enter_users(
        &self,
        changes: &[UserChange],
    ) -> Result<Vec<Result<Turn, Refusal>>, Failure> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let comes = changes.iter().find(|change| change.connections.is_some());
        let leased = self.settle(self.check_lease(comes.map(|change| &*change.lease)).await)?;
        let entering = changes.iter().map(async |change| match &leased {
            Err(refusal) if change.connections.is_some() => Ok(Err(refusal.clone())),
            _ => self.settle(self.enter_user(change).await),
        });
        let entered = try_join_all(entering).await?;
        let mut present = match self.settle(self.jetstream.info(Store::Users, None).await)? {
            Ok(info) => info.state.subjects_count,
            Err(refusal) => return Ok(entered.iter().map(|_| Err(refusal.clone())).collect()),
        };
        // After the last of them; before it, that many less or more.
        let turns = entered.into_iter().rev().map(|entered| {
            entered.map(|(was_here, is_here)| {
                let turn = Turn { is_turn: was_here != is_here, present };
                match (was_here, is_here) {
                    (false, true) => present = present.saturating_sub(1),
                    (true, false) => present += 1,
                    _ => {}
                }
                turn
            })
        });
        let mut turns: Vec<_> = turns.collect();
        turns.reverse();
        Ok(turns)
    }

    /// Enters connections on channels, and tells the channel where its namespace has that.
    pub(in crate::broker) async fn enter_clients(
        &self,
        changes: &[ClientChange],
    ) -> Result<Vec<Result<(), Refusal>>, Failure> {
        let comes = changes.iter().find(|change| change.is_here);
        let leased = self.settle(self.check_lease(comes.map(|change| &*change.lease)).await)?;
        // One after the other for each channel, as they are told there.
        let mut channels = BTreeMap::<&str, Vec<usize>>::new();
        for (index, change) in changes.iter().enumerate() {
            channels.entry(&change.client.0).or_default().push(index);
        }
        let entering = channels.into_values().map(async |channel| {
            let mut entered = Vec::with_capacity(channel.len());
            for index in channel {
                let change = &changes[index];
                let done = match &leased {
                    Err(refusal) if change.is_here => Err(refusal.clone()),
                    _ => self.settle(self.enter_client(change).await)?,
                };
                entered.push((index, done));
            }
            Ok::<_, Failure>(entered)
        });
        let entered = try_join_all(entering).await?.into_iter().flatten();
        let entered: BTreeMap<_, _> = entered.collect();
        Ok(entered.into_values().collect())
    }

    /// What it takes for all users of a node to be gone.
    pub(in crate::broker) async fn users_of(&self, lease: &str) -> Result<Vec<UserChange>, Fault> {
        let change = |record: Record| {
            let user = UserId::parse(&names::last(&record.subject)?).ok()?;
            UserRecord::parse(&record.payload)?.end(lease, user)
        };
        let subjects = self.names.subjects(Store::Users);
        Ok(self.settle(self.jetstream.all(Store::Users, subjects, change).await)??)
    }

    /// The connections of a node on channels.
    pub(in crate::broker) async fn clients_of(
        &self,
        lease: &str,
    ) -> Result<Vec<(Client, Arc<ClientInfo>)>, Fault> {
        let client = |record: Record| {
            let (channel, client) = names::last_two(&record.subject)?;
            let info = serde_json::from_slice(&record.payload).ok()?;
            Some(((channel.into(), client.into()), info))
        };
        let subjects = self.names.clients_of(lease);
        Ok(self.settle(self.jetstream.all(Store::Clients, subjects, client).await)??)
    }

    /// Who is on a channel, but for what stands under leases that have ended.
    pub(in crate::broker) async fn present(
        &self,
        channel: &str,
        ended: &[String],
    ) -> Result<Vec<Arc<ClientInfo>>, Fault> {
        let info = |record: Record| {
            let lease = names::lease_of(&record.subject)?;
            (!ended.contains(&lease)).then(|| serde_json::from_slice(&record.payload).ok())?
        };
        let present = self.jetstream.all(Store::Clients, self.names.clients_on(channel), info);
        Ok(self.settle(present.await)??)
    }

    /// How many connections and users are on a channel.
    pub(in crate::broker) async fn presence_counts(
        &self,
        channel: &str,
    ) -> Result<(usize, usize), Fault> {
        let present = self.present(channel, &[]).await?;
        let users: HashSet<_> = present.iter().map(|info| &*info.user).collect();
        Ok((present.len(), users.len()))
    }

    /// Connections of a user, but for what stands under leases that have ended.
    pub(in crate::broker) async fn connections_of(
        &self,
        user: &UserId,
        ended: &[String],
    ) -> Result<usize, Fault> {
        let record = self.jetstream.last(Store::Users, &self.names.user(user)).await;
        let record = self.settle(record)??;
        let record = record.and_then(|record| UserRecord::parse(&record.payload));
        Ok(record.unwrap_or_default().connections(ended))
    }

    /// Fails if the lease is not there of a node that enters something: under none nobody would clear it away.
    async fn check_lease(&self, lease: Option<&str>) -> Result<(), JetStreamError> {
        let Some(lease) = lease else { return Ok(()) };
        let lease = self.jetstream.last(Store::Nodes, &self.names.lease(lease)).await?;
        match lease.filter(|lease| !lease.payload.is_empty()) {
            Some(_) => Ok(()),
            None => Err(JetStreamError::Refused("the lease of the node has ended".to_owned())),
        }
    }

    /// Whether the user was here, and is.
    async fn enter_user(&self, change: &UserChange) -> Result<(bool, bool), JetStreamError> {
        let UserChange { lease, user, .. } = change;
        let (subject, value) = (self.names.user(user), UserRecord::value(change));
        self.jetstream
            .change(Store::Users, &subject, |before| changed(before, lease, value.clone()))
            .await
    }

    async fn enter_client(&self, change: &ClientChange) -> Result<(), JetStreamError> {
        let ClientChange { topic, info, is_here, .. } = change;
        // What clears away goes by the connections, so one must not go before its user does.
        let (had, has) = if *is_here {
            let entered = self.note_client(change).await?;
            self.note_user(change).await?.unwrap_or(entered)
        } else {
            let gone = self.note_user(change).await?;
            let client_gone = self.note_client(change).await?;
            gone.unwrap_or(client_gone)
        };
        if change.join_leave == JoinLeave::Off || had == has {
            return Ok(());
        }
        let change = if *is_here { Change::Join } else { Change::Leave };
        self.tell(topic, envelope::placeless(&envelope::change_body(change, info)))?;
        self.hearing.flush().await
    }

    /// Whether the connection was on the channel, and is.
    async fn note_client(&self, change: &ClientChange) -> Result<(bool, bool), JetStreamError> {
        let ClientChange { lease, client: (channel, client), info, is_here, .. } = change;
        let subject = self.names.client(lease, channel, client);
        let seen = is_here.then(|| encode(&**info).into_bytes());
        self.jetstream.change(Store::Clients, &subject, |_| seen.clone()).await
    }

    /// Whether its user was on the channel, and is, if that is asked.
    async fn note_user(
        &self,
        change: &ClientChange,
    ) -> Result<Option<(bool, bool)>, JetStreamError> {
        let ClientChange { lease, client: (channel, _), info, connections, join_leave, .. } =
            change;
        if *join_leave != JoinLeave::User {
            return Ok(None);
        }
        let subject = self.names.user_on(channel, &info.user);
        let value = (*connections > 0).then(|| connections.to_string());
        let make = |before: Option<&Record>| changed(before, lease, value.clone());
        self.jetstream.change(Store::Clients, &subject, make).await.map(Some)
    }
}

/// What a record comes to with another value under a lease, or none; `None` if nothing is left.
fn changed(before: Option<&Record>, lease: &str, value: Option<String>) -> Option<Vec<u8>> {
    let before = before.and_then(|before| UserRecord::parse(&before.payload));
    let after = before.unwrap_or_default().with(lease, value)?;
    Some(encode(&after).into_bytes())
}
