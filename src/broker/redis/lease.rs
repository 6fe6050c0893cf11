//! Leases as Redis keeps them: in one sorted set, by when they end.

use std::time::Duration;

use ::redis::Value;

use super::Session;
use super::script::{Script, array, bulk, strange};
use super::servers::Routed;
use crate::broker::engine::{CLAIM, Failure, Refusal, new_epoch};
use crate::broker::presence::{Node, Renewal};

impl Session {
    /// Renews a lease for so long; one that `is_held` must not have ended.
    pub(in crate::broker) async fn renew(
        &self,
        (lease, info): (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Result<Renewal, Refusal>, Failure> {
        let names = &self.names;
        let keys =
            [names.leases(), names.infos(), names.epoch(), names.users(), names.claim(lease)];
        let call = self.scripts.call(Script::Renew, &keys).arg(lease).arg(info);
        let call = call.arg(usize::from(is_held)).arg(ttl.as_millis() as u64).arg(&*new_epoch());
        Ok(self.one(call).await?.and_then(|answer| renewal(answer).ok_or_else(strange)))
    }

    /// Has a lease end at once; what stood under it is gone already if it `is_reaped`.
    pub(in crate::broker) async fn retire(
        &self,
        lease: &str,
        is_reaped: bool,
    ) -> Result<(), Failure> {
        let leases = self.names.leases();
        if !is_reaped {
            let end = Routed::new(&leases, "ZADD").arg(&leases).arg("XX").arg(0).arg(lease);
            return self.one(end).await.map(drop);
        }
        let infos = self.names.infos();
        let names = &self.names;
        let entered = [names.channels_of(lease), names.users_of(lease), names.claim(lease)];
        let commands = vec![
            Routed::new(&leases, "ZREM").arg(&leases).arg(lease),
            Routed::new(&infos, "HDEL").arg(&infos).arg(lease),
            Routed::new(&entered[0], "DEL").arg(&entered),
        ];
        self.servers.all(commands).await.map(drop)
    }

    /// Whether it is this node that clears away what a dead one has left.
    pub(in crate::broker) async fn claim(&self, lease: &str) -> Result<bool, Failure> {
        let key = self.names.claim(lease);
        let claim = Routed::new(&key, "SET").arg(&key).arg("").arg("NX");
        let claim = claim.arg("PX").arg(CLAIM.as_millis() as u64);
        let leases = self.names.leases();
        let ends = Routed::new(&leases, "ZSCORE").arg(&leases).arg(lease);
        let now = Routed::new(&leases, "TIME");
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
}

fn renewal(answer: Value) -> Option<Renewal> {
    let [is_renewed, epoch, nodes, ended, present] = array(answer)?;
    let text = |value| bulk(value).and_then(|bytes| String::from_utf8(bytes).ok());
    let Value::Array(nodes) = nodes else { return None };
    let Value::Array(ended) = ended else { return None };
    let (Value::Int(is_renewed), Value::Int(present)) = (is_renewed, present) else { return None };
    let nodes = nodes.into_iter().filter_map(|node| {
        let [name, info] = array(node)?;
        Some(Node { lease: text(name)?, info: text(info)? })
    });
    Some(Renewal {
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
