//! Who is here, as Redis keeps it: users in one hash, and connections on channels in one for each channel, by
//! the leases that they stand under.

use std::sync::Arc;
use std::time::Duration;

use ::redis::Value;

use super::script::{Script, array, bulk, strange};
use super::servers::Routed;
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
        let calls = changes.iter().map(|change| self.enter_user(change)).collect();
        Ok(self.servers.all(calls).await?.into_iter().map(|answer| turn(answer?)).collect())
    }

    /// Enters connections on channels, and tells the channel where its namespace has that.
    pub(in crate::broker) async fn enter_clients(
        &self,
        changes: &[ClientChange],
    ) -> Result<Vec<Result<(), Refusal>>, Failure> {
        let calls = changes.iter().flat_map(|change| {
            let key = self.names.channels_of(&change.lease);
            let note = Routed::new(&key, "SADD").arg(&key).arg(&*change.client.0);
            [note, self.enter_client(change)]
        });
        let answers = self.servers.all(calls.collect()).await?;
        let mut done = Vec::with_capacity(changes.len());
        let mut answers = answers.into_iter();
        while let (Some(noted), Some(entered)) = (answers.next(), answers.next()) {
            done.push(noted.and(entered).map(drop));
        }
        Ok(done)
    }

    /// What it takes for all users of a node to be gone.
    pub(in crate::broker) async fn users_of(&self, lease: &str) -> Result<Vec<UserChange>, Fault> {
        let users = self.members(&self.names.users_of(lease)).await?;
        let mut changes = Vec::new();
        for users in users.chunks(BATCH) {
            let all = self.names.users();
            let get = Routed::new(&all, "HMGET").arg(&all).arg(users);
            let Value::Array(entries) = self.one(get).await?? else { return Err(strange().into()) };
            let records = entries.into_iter().map(|entry| UserRecord::parse(&bulk(entry)?));
            let end = |(user, record): (&String, Option<UserRecord>)| {
                record?.end(lease, UserId::parse(user).ok()?)
            };
            changes.extend(users.iter().zip(records).filter_map(end));
        }
        Ok(changes)
    }

    /// The connections of a node on channels.
    pub(in crate::broker) async fn clients_of(
        &self,
        lease: &str,
    ) -> Result<Vec<(Client, Arc<ClientInfo>)>, Fault> {
        let channels = self.members(&self.names.channels_of(lease)).await?;
        let mut clients = Vec::new();
        for channel in channels {
            let entries = self.under(&self.names.clients_on(&channel), lease).await?;
            let channel = Arc::<str>::from(channel);
            clients.extend(entries.into_iter().filter_map(|(client, info)| {
                Some(((channel.clone(), client.into()), serde_json::from_slice(&info).ok()?))
            }));
        }
        Ok(clients)
    }

    /// Who is on a channel, but for what stands under leases that have ended.
    pub(in crate::broker) async fn present(
        &self,
        channel: &str,
        ended: &[String],
    ) -> Result<Vec<Arc<ClientInfo>>, Fault> {
        let key = self.names.clients_on(channel);
        let all = Routed::new(&key, "HGETALL").arg(&key);
        let entries = pairs(self.one(all).await??);
        let counts = |(field, _): &(Vec<u8>, Vec<u8>)| {
            let lease = field.split(|byte| *byte == b'/').next().unwrap_or_default();
            !ended.iter().any(|ended| ended.as_bytes() == lease)
        };
        let entries = entries.into_iter().filter(counts);
        Ok(entries.filter_map(|(_, info)| serde_json::from_slice(&info).ok()).collect())
    }

    /// How many connections and users are on a channel.
    pub(in crate::broker) async fn presence_counts(
        &self,
        channel: &str,
    ) -> Result<(usize, usize), Fault> {
        let lengths = [self.names.clients_on(channel), self.names.users_on(channel)];
        let lengths = lengths.map(|key| Routed::new(&key, "HLEN").arg(&key));
        let mut counts = self.servers.all(lengths.into()).await?.into_iter();
        let mut next = || match counts.next() {
            Some(Ok(Value::Int(count))) => Ok(usize::try_from(count).unwrap_or(0)),
            Some(Err(refusal)) => Err(refusal),
            _ => Err(strange()),
        };
        Ok((next()?, next()?))
    }

    /// Connections of a user, but for what stands under leases that have ended.
    pub(in crate::broker) async fn connections_of(
        &self,
        user: &UserId,
        ended: &[String],
    ) -> Result<usize, Fault> {
        let all = self.names.users();
        let get = Routed::new(&all, "HGET").arg(&all).arg(user.to_string());
        let record = bulk(self.one(get).await??).and_then(|record| UserRecord::parse(&record));
        Ok(record.unwrap_or_default().connections(ended))
    }

    fn enter_user(&self, change: &UserChange) -> Routed {
        let UserChange { lease, user, .. } = change;
        let keys = [self.names.users(), self.names.users_of(lease), self.names.leases()];
        let value = UserRecord::value(change).unwrap_or_default();
        self.scripts.call(Script::EnterUser, &keys).arg(&**lease).arg(user.to_string()).arg(value)
    }

    fn enter_client(&self, change: &ClientChange) -> Routed {
        let ClientChange { lease, topic, client, info, is_here, connections, join_leave } = change;
        let (channel, client) = client;
        let keys = [self.names.clients_on(channel), self.names.users_on(channel)];
        let change = if *is_here { Change::Join } else { Change::Leave };
        let mode = match join_leave {
            JoinLeave::Off => "off",
            JoinLeave::Client => "client",
            JoinLeave::User => "user",
        };
        let seen = if *is_here { encode(&**info) } else { String::new() };
        let there = if *connections > 0 { connections.to_string() } else { String::new() };
        let call = self.scripts.call(Script::EnterClient, &keys).arg(&**lease).arg(&**client);
        let call = call.arg(seen).arg(&info.user).arg(there).arg(mode);
        let call = call.arg(self.names.topic(topic));
        let call = call.arg(&envelope::placeless(&envelope::change_body(change, info))[..]);
        call.arg(PRESENCE_TTL.as_millis() as u64).arg(self.servers.publish_word())
    }

    async fn members(&self, key: &str) -> Result<Vec<String>, Fault> {
        let members = Routed::new(key, "SMEMBERS").arg(key);
        let (Value::Set(members) | Value::Array(members)) = self.one(members).await?? else {
            return Err(strange().into());
        };
        let text = |value| bulk(value).and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(members.into_iter().filter_map(text).collect())
    }

    /// What stands under a lease in a hash.
    async fn under(&self, key: &str, lease: &str) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let (mut found, mut cursor) = (Vec::new(), b"0".to_vec());
        let prefix = format!("{lease}/");
        loop {
            let scan = Routed::new(key, "HSCAN").arg(key).arg(&cursor[..]);
            let scan = scan.arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(BATCH);
            let answer = self.one(scan).await??;
            let [next, entries] = array(answer).ok_or_else(strange)?;
            for (field, value) in pairs(entries) {
                let field = String::from_utf8(field).ok();
                let name = field.as_deref().and_then(|field| field.strip_prefix(&prefix));
                found.extend(name.map(|name| (name.to_owned(), value)));
            }
            cursor = bulk(next).unwrap_or_default();
            if cursor == b"0" || cursor.is_empty() {
                return Ok(found);
            }
        }
    }
}

fn turn(answer: Value) -> Result<Turn, Refusal> {
    match array(answer) {
        Some([Value::Int(is_turn), Value::Int(present)]) => {
            Ok(Turn { is_turn: is_turn == 1, present: usize::try_from(present).unwrap_or(0) })
        }
        _ => Err(strange()),
    }
}

/// Fields and values, as either version of the protocol gives them.
fn pairs(value: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    match value {
        Value::Map(pairs) => {
            pairs.into_iter().filter_map(|(field, value)| bulk(field).zip(bulk(value))).collect()
        }
        Value::Array(values) => {
            let mut values = values.into_iter().filter_map(bulk);
            std::iter::from_fn(|| values.next().zip(values.next())).collect()
        }
        _ => Vec::new(),
    }
}

/// Records that are read at once.
const BATCH: usize = 1000;

/// How long it is kept who is on a channel after the last change or look: for when no node is left to clear
/// it away.
pub(super) const PRESENCE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
