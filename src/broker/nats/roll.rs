//! Who is here, as NATS keeps it: a record a user, with what stands of it by lease, and one a connection on
//! a channel, under the name of its lease.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::names::{self, Store};
use super::trouble::Trouble;
use super::vault::Record;
use super::{Session, envelope};
use crate::broker::engine::{Failure, Refusal};
use crate::broker::envelope::Change;
use crate::broker::ledger::{Client, ClientChange, Turn, UserChange};
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
        let has_lease = self.has_lease(changes).await?;
        let entering = changes.iter().map(async |change| {
            if change.connections.is_some() && !has_lease {
                return Ok(Err(Refusal::new("the lease of the node has ended")));
            }
            match self.enter_user(change).await {
                Ok(change) => Ok(Ok(change)),
                Err(trouble) => self.refuse(trouble).map(Err),
            }
        });
        let entered = try_join_all(entering).await?;
        let mut present = self.vault.info(Store::Users, None).await?.state.subjects_count;
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
        // One after the other for each channel, as they are told there.
        let mut channels = BTreeMap::<&str, Vec<usize>>::new();
        for (index, change) in changes.iter().enumerate() {
            channels.entry(&change.client.0).or_default().push(index);
        }
        let entering = channels.into_values().map(async |channel| {
            let mut entered = Vec::with_capacity(channel.len());
            for index in channel {
                let done = match self.enter_client(&changes[index]).await {
                    Ok(()) => Ok(()),
                    Err(trouble) => Err(self.refuse(trouble)?),
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
    pub(in crate::broker) async fn users_of(&self, node: &str) -> Result<Vec<UserChange>, Failure> {
        let subjects = self.names.subjects(Store::Users);
        let records = self.vault.all(Store::Users, subjects).await?;
        let change = |record: Record| {
            let value = entry_of(&record)?.remove(node)?;
            let (_, name) = value.split_once(':')?;
            let user = UserId::parse(&names::last(&record.subject)?).ok()?;
            Some(UserChange { node: node.into(), user, name: name.into(), connections: None })
        };
        Ok(records.into_iter().filter_map(change).collect())
    }

    /// The connections of a node on channels.
    pub(in crate::broker) async fn clients_of(
        &self,
        node: &str,
    ) -> Result<Vec<(Client, Arc<ClientInfo>)>, Failure> {
        let subjects = self.names.clients_of(node);
        let records = self.vault.all(Store::Clients, subjects).await?;
        let client = |record: Record| {
            let (channel, client) = names::last_two(&record.subject)?;
            let info = serde_json::from_slice(&record.payload).ok()?;
            Some(((channel.into(), client.into()), info))
        };
        Ok(records.into_iter().filter_map(client).collect())
    }

    /// Who is on a channel, but for what stands under leases that have ended.
    pub(in crate::broker) async fn present(
        &self,
        channel: &str,
        ended: &[String],
    ) -> Result<Vec<Arc<ClientInfo>>, String> {
        let subjects = self.names.clients_on(channel);
        let records = self.vault.all(Store::Clients, subjects).await;
        let records = records.map_err(|trouble| trouble.to_string())?.into_iter();
        let counts = |record: &Record| {
            names::lease_of(&record.subject).is_some_and(|lease| !ended.contains(&lease))
        };
        let records = records.filter(counts);
        Ok(records.filter_map(|record| serde_json::from_slice(&record.payload).ok()).collect())
    }

    /// How many connections and users are on a channel.
    pub(in crate::broker) async fn presence_counts(
        &self,
        channel: &str,
    ) -> Result<(usize, usize), String> {
        let present = self.present(channel, &[]).await?;
        let users: HashSet<_> = present.iter().map(|info| &*info.user).collect();
        Ok((present.len(), users.len()))
    }

    /// Connections of a user, but for what stands under leases that have ended.
    pub(in crate::broker) async fn connections_of(
        &self,
        user: &UserId,
        ended: &[String],
    ) -> Result<usize, String> {
        let record = self.vault.last(Store::Users, &self.names.user(user)).await;
        let record = record.map_err(|trouble| trouble.to_string())?;
        let Some(entry) = record.and_then(|record| entry_of(&record)) else { return Ok(0) };
        let counts = entry.iter().filter(|(lease, _)| !ended.contains(lease));
        let counts = counts.filter_map(|(_, value)| value.split_once(':')?.0.parse::<usize>().ok());
        Ok(counts.sum())
    }

    /// Whether the lease of a node is there that enters users: under none nobody would clear them away.
    async fn has_lease(&self, changes: &[UserChange]) -> Result<bool, Trouble> {
        let Some(change) = changes.iter().find(|change| change.connections.is_some()) else {
            return Ok(true);
        };
        let lease = self.vault.last(Store::Nodes, &self.names.lease(&change.node)).await?;
        Ok(lease.is_some())
    }

    /// Whether the user was here, and is.
    async fn enter_user(&self, change: &UserChange) -> Result<(bool, bool), Trouble> {
        let UserChange { node, user, name, connections } = change;
        let value = connections.map(|count| format!("{count}:{name}"));
        let subject = self.names.user(user);
        self.vault.change(Store::Users, &subject, |before| with(before, node, value.clone())).await
    }

    async fn enter_client(&self, change: &ClientChange) -> Result<(), Trouble> {
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
        self.tell(topic, envelope::placeless(&envelope::change_body(change, info))).await?;
        self.confirm().await
    }

    /// Whether the connection was on the channel, and is.
    async fn note_client(&self, change: &ClientChange) -> Result<(bool, bool), Trouble> {
        let ClientChange { node, client: (channel, client), info, is_here, .. } = change;
        let subject = self.names.client(node, channel, client);
        let seen = is_here.then(|| encode(&**info).into_bytes());
        self.vault.change(Store::Clients, &subject, |_| seen.clone()).await
    }

    /// Whether its user was on the channel, and is, if that is asked.
    async fn note_user(&self, change: &ClientChange) -> Result<Option<(bool, bool)>, Trouble> {
        let ClientChange { node, client: (channel, _), info, connections, join_leave, .. } = change;
        if *join_leave != JoinLeave::User {
            return Ok(None);
        }
        let subject = self.names.user_on(channel, &info.user);
        let value = (*connections > 0).then(|| connections.to_string());
        let make = |before: Option<&Record>| with(before, node, value.clone());
        self.vault.change(Store::Clients, &subject, make).await.map(Some)
    }
}

/// What stands by lease.
fn entry_of(record: &Record) -> Option<BTreeMap<String, String>> {
    serde_json::from_slice(&record.payload).ok()
}

/// A record with another value under a lease, or none; `None` if nothing is left.
fn with(before: Option<&Record>, node: &str, value: Option<String>) -> Option<Vec<u8>> {
    let mut entry = before.and_then(entry_of).unwrap_or_default();
    match value {
        Some(value) => entry.insert(node.to_owned(), value),
        None => entry.remove(node),
    };
    (!entry.is_empty()).then(|| encode(&entry).into_bytes())
}
