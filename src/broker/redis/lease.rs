//! The ledger as Redis keeps it: leases in one sorted set, by when they end, and who is here in hashes
//! whose fields begin with the name of the lease that they stand under.

use std::sync::Arc;
use std::time::Duration;

use ::redis::Value;

use super::script::{Script, array, bulk, strange};
use super::servers::Routed;
use super::{Session, envelope};
use crate::broker::engine::{CLAIM, Failure, Fault, Refusal, new_epoch};
use crate::broker::entry::Entry;
use crate::broker::envelope::Change;
use crate::broker::ledger::{Beat, Client, ClientChange, Node, Turn, UserChange};
use crate::config::JoinLeave;
use crate::protocol::centrifuge::ClientInfo;
use crate::protocol::json::encode;
use crate::user::UserId;

impl Session {
    /// Renews a lease for so long; one that `is_held` must not have ended.
    pub(in crate::broker) async fn beat(
        &self,
        (node, info): (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Result<Beat, Refusal>, Failure> {
        let claim = format!("claim:{node}");
        let keys = ["nodes", "infos", "epoch", "roll", &claim].map(|what| self.names.common(what));
        let call = self.scripts.call(Script::Beat, &keys).arg(node).arg(info);
        let call = call.arg(usize::from(is_held)).arg(ttl.as_millis() as u64).arg(&*new_epoch());
        Ok(self.one(call).await?.and_then(|answer| beat(answer).ok_or_else(strange)))
    }

    /// Has a lease end at once; what stood under it is gone already if it `is_cleared`.
    pub(in crate::broker) async fn retire(
        &self,
        node: &str,
        is_cleared: bool,
    ) -> Result<(), Failure> {
        let nodes = self.names.common("nodes");
        if !is_cleared {
            let end = Routed::new(&nodes, "ZADD").arg(&nodes).arg("XX").arg(0).arg(node);
            return self.one(end).await.map(drop);
        }
        let infos = self.names.common("infos");
        let entered = ["channels", "users", "claim"];
        let entered = entered.map(|what| self.names.common(&format!("{what}:{node}")));
        let commands = vec![
            Routed::new(&nodes, "ZREM").arg(&nodes).arg(node),
            Routed::new(&infos, "HDEL").arg(&infos).arg(node),
            Routed::new(&entered[0], "DEL").arg(&entered),
        ];
        self.servers.all(commands).await.map(drop)
    }

    /// Whether it is this node that clears away what a dead one has left.
    pub(in crate::broker) async fn claim(&self, node: &str) -> Result<bool, Failure> {
        let key = self.names.common(&format!("claim:{node}"));
        let claim = Routed::new(&key, "SET").arg(&key).arg("").arg("NX");
        let claim = claim.arg("PX").arg(CLAIM.as_millis() as u64);
        let nodes = self.names.common("nodes");
        let ends = Routed::new(&nodes, "ZSCORE").arg(&nodes).arg(node);
        let now = Routed::new(&nodes, "TIME");
        let mut answers = self.servers.all(vec![claim, ends, now]).await?.into_iter();
        if !matches!(answers.next(), Some(Ok(Value::Okay))) {
            return Ok(false);
        }
        // Renewed before it was claimed, it is alive; from now on it cannot be.
        let ends = answers.next().and_then(Result::ok).and_then(score);
        let now = answers.next().and_then(Result::ok).and_then(time);
        let is_alive = ends.zip(now).is_some_and(|(ends, now)| ends > now);
        if is_alive {
            self.one(Routed::new(&key, "DEL").arg(&key)).await?.ok();
        }
        Ok(!is_alive)
    }

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
            let key = self.names.common(&format!("channels:{}", change.node));
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
    pub(in crate::broker) async fn users_of(&self, node: &str) -> Result<Vec<UserChange>, Fault> {
        let users = self.members(&self.names.common(&format!("users:{node}"))).await?;
        let mut changes = Vec::new();
        for users in users.chunks(1000) {
            let roll = self.names.common("roll");
            let get = Routed::new(&roll, "HMGET").arg(&roll).arg(users);
            let Value::Array(entries) = self.one(get).await?? else { return Err(strange().into()) };
            let entries = entries.into_iter().map(|entry| Entry::parse(&bulk(entry)?));
            changes.extend(
                users
                    .iter()
                    .zip(entries)
                    .filter_map(|(user, entry)| entry?.end(node, UserId::parse(user).ok()?)),
            );
        }
        Ok(changes)
    }

    /// The connections of a node on channels.
    pub(in crate::broker) async fn clients_of(
        &self,
        node: &str,
    ) -> Result<Vec<(Client, Arc<ClientInfo>)>, Fault> {
        let channels = self.members(&self.names.common(&format!("channels:{node}"))).await?;
        let mut clients = Vec::new();
        for channel in channels {
            let entries = self.under(&self.names.key(&channel, "present"), node).await?;
            let channel = Arc::<str>::from(channel);
            clients.extend(entries.into_iter().filter_map(|(client, info)| {
                Some(((channel.clone(), client.into()), serde_json::from_slice(&info).ok()?))
            }));
        }
        Ok(clients)
    }

    /// Who is on a channel, but for what stands under leases that have ended.
    pub(crate) async fn present(
        &self,
        channel: &str,
        ended: &[String],
    ) -> Result<Vec<Arc<ClientInfo>>, String> {
        let key = self.names.key(channel, "present");
        let all = Routed::new(&key, "HGETALL").arg(&key);
        let answer = self.one(all).await.map_err(|failure| failure.to_string())?;
        let entries = pairs(answer.map_err(|refusal| refusal.to_string())?);
        let counts = |(field, _): &(Vec<u8>, Vec<u8>)| {
            let lease = field.split(|byte| *byte == b'/').next().unwrap_or_default();
            !ended.iter().any(|ended| ended.as_bytes() == lease)
        };
        let entries = entries.into_iter().filter(counts);
        Ok(entries.filter_map(|(_, info)| serde_json::from_slice(&info).ok()).collect())
    }

    /// How many connections and users are on a channel.
    pub(crate) async fn presence_counts(&self, channel: &str) -> Result<(usize, usize), String> {
        let lengths = ["present", "users"].map(|what| {
            let key = self.names.key(channel, what);
            Routed::new(&key, "HLEN").arg(&key)
        });
        let answers = self.servers.all(lengths.into()).await.map_err(|it| it.to_string())?;
        let mut counts = answers.into_iter().map(|answer| match answer {
            Ok(Value::Int(count)) => Ok(usize::try_from(count).unwrap_or(0)),
            Ok(_) => Err(strange().to_string()),
            Err(refusal) => Err(refusal.to_string()),
        });
        let mut next = || counts.next().unwrap_or_else(|| Err(strange().to_string()));
        Ok((next()?, next()?))
    }

    /// Connections of a user, but for what stands under leases that have ended.
    pub(crate) async fn connections_of(
        &self,
        user: &UserId,
        ended: &[String],
    ) -> Result<usize, String> {
        let roll = self.names.common("roll");
        let get = Routed::new(&roll, "HGET").arg(&roll).arg(user.to_string());
        let answer = self.one(get).await.map_err(|failure| failure.to_string())?;
        let answer = answer.map_err(|refusal| refusal.to_string())?;
        let entry = bulk(answer).and_then(|entry| Entry::parse(&entry));
        Ok(entry.unwrap_or_default().connections(ended))
    }

    fn enter_user(&self, change: &UserChange) -> Routed {
        let UserChange { node, user, .. } = change;
        let users = self.names.common(&format!("users:{node}"));
        let keys = [self.names.common("roll"), users, self.names.common("nodes")];
        let value = Entry::value(change).unwrap_or_default();
        self.scripts.call(Script::Roll, &keys).arg(&**node).arg(user.to_string()).arg(value)
    }

    fn enter_client(&self, change: &ClientChange) -> Routed {
        let ClientChange { node, topic, client, info, is_here, connections, join_leave } = change;
        let (channel, client) = client;
        let keys = [self.names.key(channel, "present"), self.names.key(channel, "users")];
        let change = if *is_here { Change::Join } else { Change::Leave };
        let mode = match join_leave {
            JoinLeave::Off => "off",
            JoinLeave::Client => "client",
            JoinLeave::User => "user",
        };
        let seen = if *is_here { encode(&**info) } else { String::new() };
        let there = if *connections > 0 { connections.to_string() } else { String::new() };
        let call = self.scripts.call(Script::Enter, &keys).arg(&**node).arg(&**client);
        let call = call.arg(seen).arg(&info.user).arg(there).arg(mode);
        let call = call.arg(self.names.topic(topic));
        let call = call.arg(envelope::placeless(&envelope::change_body(change, info)));
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
    async fn under(&self, key: &str, node: &str) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let (mut found, mut cursor) = (Vec::new(), b"0".to_vec());
        let prefix = format!("{node}/");
        loop {
            let scan = Routed::new(key, "HSCAN").arg(key).arg(&cursor[..]);
            let scan = scan.arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1000);
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

fn beat(answer: Value) -> Option<Beat> {
    let [is_renewed, epoch, nodes, ended, present] = array(answer)?;
    let text = |value| bulk(value).and_then(|bytes| String::from_utf8(bytes).ok());
    let Value::Array(nodes) = nodes else { return None };
    let Value::Array(ended) = ended else { return None };
    let (Value::Int(is_renewed), Value::Int(present)) = (is_renewed, present) else { return None };
    let nodes = nodes.into_iter().filter_map(|node| {
        let [name, info] = array(node)?;
        Some(Node { name: text(name)?, info: text(info)? })
    });
    Some(Beat {
        is_renewed: is_renewed == 1,
        epoch: text(epoch)?,
        nodes: nodes.collect(),
        ended: ended.into_iter().filter_map(text).collect(),
        present: usize::try_from(present).ok()?,
    })
}

/// A score, in milliseconds.
fn score(value: Value) -> Option<f64> {
    match value {
        Value::Double(score) => Some(score),
        value => String::from_utf8(bulk(value)?).ok()?.parse().ok(),
    }
}

/// The server's time, in milliseconds.
fn time(value: Value) -> Option<f64> {
    let [seconds, micros] = array(value)?;
    let number = |value| String::from_utf8(bulk(value)?).ok()?.parse::<f64>().ok();
    Some(number(seconds)? * 1000.0 + number(micros)? / 1000.0)
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

/// How long what stands of a channel is kept after the last change: for when no node is left to clear it
/// away.
const PRESENCE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
