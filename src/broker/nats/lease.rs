//! Leases as NATS keeps them: one record each, which its node stores anew with every beat. By how old it is,
//! at the server, all nodes know whether it has ended.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all, try_join3};

use super::Session;
use super::names::{self, Store};
use super::trouble::{self, Trouble};
use super::vault::{Record, Stored};
use crate::broker::engine::{CLAIM, Failure, Refusal};
use crate::broker::ledger::{Beat, Node};

/// The lease of this node, over all sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold(Arc<Mutex<Option<Held>>>);

/// A lease that was stored.
#[derive(Clone, Debug)]
struct Held {
    name: String,
    sequence: u64,
}

impl Session {
    /// Renews a lease for so long; one that `is_held` must not have ended.
    pub(in crate::broker) async fn beat(
        &self,
        (node, info): (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Result<Beat, Refusal>, Failure> {
        let beat = self.settle(self.beat_once((node, info), is_held, ttl).await);
        if self.lacks_stream.load(Ordering::Relaxed) {
            // The next session makes it again.
            return Err(Failure::new(Trouble::NoStream.to_string()));
        }
        beat
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
    pub(in crate::broker) async fn claim(
        &self,
        node: &str,
        ttl: Duration,
    ) -> Result<bool, Failure> {
        Ok(self.settle(self.claim_once(node, ttl).await)?.unwrap_or(false))
    }

    async fn claim_once(&self, node: &str, ttl: Duration) -> Result<bool, Trouble> {
        let (lease, claim) = (self.names.lease(node), self.names.claim(node));
        let (lease, claimed) =
            try_join(self.vault.last(Store::Nodes, &lease), self.vault.last(Store::Nodes, &claim))
                .await?;
        let is_younger = |it: &Option<Record>, than| {
            it.as_ref().is_some_and(|it| self.clock.now().saturating_sub(it.time) < than)
        };
        let lease = lease.filter(|lease| !lease.payload.is_empty());
        if is_younger(&lease, ttl) || is_younger(&claimed, CLAIM) {
            return Ok(false);
        }
        let expected = claimed.map_or(0, |claimed| claimed.sequence);
        self.vault.put(claim, Some(expected), None, Bytes::new()).await?;
        if let Some(lease) = lease {
            // Renewed meanwhile, it is not ended by this; from then on it is not to be renewed.
            let subject = self.names.lease(node);
            self.vault.put(subject, Some(lease.sequence), None, Bytes::new()).await?;
        }
        Ok(true)
    }

    async fn beat_once(
        &self,
        (node, info): (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Beat, Trouble> {
        let is_renewed = self.renew(node, info, is_held).await?;
        let leases = self.names.leases();
        let nodes = self.vault.info(Store::Nodes, Some(&leases));
        let (users, clients) =
            (self.vault.info(Store::Users, None), self.vault.info(Store::Clients, None));
        let (leases, users, clients) = try_join3(nodes, users, clients).await?;
        let subjects = leases.state.subjects.keys();
        let records = subjects.map(|subject| self.vault.last(Store::Nodes, subject));
        let (mut nodes, mut ended) = (Vec::new(), Vec::new());
        let records = try_join_all(records).await?;
        let now = self.clock.now();
        for record in records.into_iter().flatten() {
            let Some(name) = names::last(&record.subject) else { continue };
            let info = String::from_utf8_lossy(&record.payload).into_owned();
            if info.is_empty() || now.saturating_sub(record.time) >= ttl {
                ended.push(name);
            } else {
                nodes.push(Node { name, info });
            }
        }
        let present = users.state.subjects_count;
        let epoch = format!("{} {}", users.created, clients.created);
        Ok(Beat { is_renewed, epoch, nodes, ended, present })
    }

    /// One that has ended but that nobody clears away yet is as good as before: all end while the server is
    /// away.
    async fn renew(&self, node: &str, info: &str, is_held: bool) -> Result<bool, Trouble> {
        let (begun, subject) = (Instant::now(), self.names.lease(node));
        let held = self.hold.lock().clone().filter(|held| held.name == node);
        let mut expected = match held {
            Some(held) => Some(held.sequence),
            None if is_held => return Ok(false),
            None => None,
        };
        loop {
            let (at, info) = (Instant::now(), Bytes::copy_from_slice(info.as_bytes()));
            let stored = self.vault.put(subject.clone(), expected, None, info).await;
            if !trouble::is_to_be_tried_again(&stored, begun) {
                let Stored { sequence, .. } = stored?;
                *self.hold.lock() = Some(Held { name: node.to_owned(), sequence });
                return self.set_clock(sequence, at).await.map(|()| true);
            }
            // A renewal that was not known to have come is none of another's.
            let record = self.vault.last(Store::Nodes, &subject).await?;
            expected = match record.filter(|record| !record.payload.is_empty()) {
                Some(record) => Some(record.sequence),
                None => return Ok(false),
            };
        }
    }

    /// Sets the clock by what was stored at an instant.
    async fn set_clock(&self, sequence: u64, at: Instant) -> Result<(), Trouble> {
        if let Some(record) = self.vault.at(Store::Nodes, sequence).await? {
            self.clock.set(record.time, at);
        }
        Ok(())
    }
}

impl Hold {
    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        // A panic beside it leaves nothing half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
