//! Leases as NATS keeps them: one record each, which its node stores anew with every beat. By how old it is,
//! at the server, all nodes know whether it has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};

use super::names::{self, Store};
use super::trouble::Trouble;
use super::{Ordering, Session};
use crate::broker::engine::{Failure, Refusal};
use crate::broker::ledger::{Beat, Node};

/// The lease of this node, over all sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold(Arc<Mutex<Option<Held>>>);

/// A lease that was stored.
#[derive(Clone, Debug)]
struct Held {
    name: String,
    sequence: u64,
    at: Instant,
}

impl Session {
    /// Renews a lease for so long; one that `is_held` must not have ended.
    pub(in crate::broker) async fn beat(
        &self,
        (node, info): (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Result<Beat, Refusal>, Failure> {
        if self.lacks_stream.load(Ordering::Relaxed) {
            return Err(Trouble::NoStream.into());
        }
        match self.beat_once((node, info), is_held, ttl).await {
            Ok(beat) => Ok(Ok(beat)),
            // The next session makes it again.
            Err(trouble @ Trouble::NoStream) => Err(trouble.into()),
            Err(trouble) => trouble.refusal().map(Err),
        }
    }

    /// Has a lease end at once; what stood under it is gone already if it `is_cleared`.
    pub(in crate::broker) async fn retire(
        &self,
        node: &str,
        is_cleared: bool,
    ) -> Result<(), Failure> {
        let (lease, claim) = (self.names.lease(node), self.names.claim(node));
        let retired = if is_cleared {
            let lease = self.vault.forget(Store::Nodes, &lease, None);
            try_join(lease, self.vault.forget(Store::Nodes, &claim, None)).await.map(drop)
        } else {
            self.vault.put(lease, None, None, Bytes::new()).await.map(drop)
        };
        retired.or_else(|trouble| self.refuse(trouble).map(drop))
    }

    /// Whether it is this node that clears away what a dead one has left.
    pub(in crate::broker) async fn claim(&self, node: &str) -> Result<bool, Failure> {
        let claim = self.names.claim(node);
        let before = self.vault.last(Store::Nodes, &claim).await?;
        let now = self.clock.now();
        if before.as_ref().is_some_and(|it| now.saturating_sub(it.time) < CLAIM) {
            return Ok(false);
        }
        let expected = before.map_or(0, |before| before.sequence);
        match self.vault.put(claim, Some(expected), None, Bytes::new()).await {
            Ok(_) => Ok(true),
            Err(trouble) => self.refuse(trouble).map(|_| false),
        }
    }

    async fn beat_once(
        &self,
        (node, info): (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Beat, Trouble> {
        let is_renewed = self.renew(node, info, is_held, ttl).await?;
        let leases = self.names.leases();
        let nodes = self.vault.info(Store::Nodes, Some(&leases));
        let (leases, users) = try_join(nodes, self.vault.info(Store::Users, None)).await?;
        let subjects = leases.state.subjects.keys();
        let records = subjects.map(|subject| self.vault.last(Store::Nodes, subject));
        let (mut nodes, mut ended) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        for record in try_join_all(records).await?.into_iter().flatten() {
            let Some(name) = names::last(&record.subject) else { continue };
            let info = String::from_utf8_lossy(&record.payload).into_owned();
            if info.is_empty() || now.saturating_sub(record.time) >= ttl {
                ended.push(name);
            } else {
                nodes.push(Node { name, info });
            }
        }
        let present = users.state.subjects_count;
        Ok(Beat { is_renewed, epoch: users.created, nodes, ended, present })
    }

    async fn renew(
        &self,
        node: &str,
        info: &str,
        is_held: bool,
        ttl: Duration,
    ) -> Result<bool, Trouble> {
        let (at, subject) = (Instant::now(), self.names.lease(node));
        let held = self.hold.lock().clone().filter(|held| held.name == node);
        let mut expected = match held {
            Some(held) if held.at.elapsed() < ttl => Some(held.sequence),
            _ if is_held => return Ok(false),
            _ => None,
        };
        loop {
            let info = Bytes::copy_from_slice(info.as_bytes());
            match self.vault.put(subject.clone(), expected, None, info).await {
                Ok(stored) => {
                    let held = Held { name: node.to_owned(), sequence: stored.sequence, at };
                    *self.hold.lock() = Some(held);
                    return Ok(true);
                }
                Err(Trouble::Conflict) => {}
                Err(trouble) => return Err(trouble),
            }
            // A renewal that was not known to have come is none of another's.
            let record = self.vault.last(Store::Nodes, &subject).await?;
            expected = match record.filter(|record| !record.payload.is_empty()) {
                Some(record) => Some(record.sequence),
                None => return Ok(false),
            };
        }
    }
}

impl Hold {
    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        // A panic beside it leaves nothing half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long clearing away may take before another node tries.
const CLAIM: Duration = Duration::from_secs(30);
