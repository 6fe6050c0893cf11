//! Leases as NATS keeps them: one record each, which its node stores anew with every beat. By how old it is,
//! at the server, all nodes know whether it has ended.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all, try_join3};

use super::Session;
use super::error::{self, JetStreamError};
use super::jetstream::{Record, Stored};
use super::names::{self, Store};
use crate::broker::engine::{CLAIM, Failure, Refusal};
use crate::broker::presence::{Node, Renewal};
use crate::lock::lock;

/// The lease of this node, over all sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnLease(Arc<Mutex<Option<StoredLease>>>);

/// A lease that was stored.
#[derive(Clone, Debug)]
struct StoredLease {
    name: String,
    sequence: u64,
}

impl Session {
    /// Renews a lease for so long; one that `is_held` must not have ended.
    pub(in crate::broker) async fn renew(
        &self,
        (lease, info): (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Result<Renewal, Refusal>, Failure> {
        let renewed = self.settle(self.renew_once((lease, info), is_held, ttl).await);
        self.check_streams()?;
        renewed
    }

    /// Has a lease end at once; what stood under it is gone already if it `is_reaped`.
    pub(in crate::broker) async fn retire(
        &self,
        lease: &str,
        is_reaped: bool,
    ) -> Result<(), Failure> {
        let (subject, claim) = (self.names.lease(lease), self.names.claim(lease));
        let retired = if is_reaped {
            let lease = self.jetstream.forget(Store::Nodes, &subject, None);
            try_join(lease, self.jetstream.forget(Store::Nodes, &claim, None)).await.map(drop)
        } else {
            self.jetstream.put(subject, None, None, Bytes::new()).await.map(drop)
        };
        retired.or_else(|error| self.refuse(error).map(drop))
    }

    /// Whether it is this node that clears away what a dead one has left.
    pub(in crate::broker) async fn claim(
        &self,
        lease: &str,
        ttl: Duration,
    ) -> Result<bool, Failure> {
        Ok(self.settle(self.claim_once(lease, ttl).await)?.unwrap_or(false))
    }

    async fn claim_once(&self, lease: &str, ttl: Duration) -> Result<bool, JetStreamError> {
        let (subject, claim) = (self.names.lease(lease), self.names.claim(lease));
        let (lease, claimed) = try_join(
            self.jetstream.last(Store::Nodes, &subject),
            self.jetstream.last(Store::Nodes, &claim),
        )
        .await?;
        let is_younger = |it: &Option<Record>, than| {
            it.as_ref().is_some_and(|it| self.clock.now().saturating_sub(it.time) < than)
        };
        let lease = lease.filter(|lease| !lease.payload.is_empty());
        if is_younger(&lease, ttl) || is_younger(&claimed, CLAIM) {
            return Ok(false);
        }
        let expected = claimed.map_or(0, |claimed| claimed.sequence);
        self.jetstream.put(claim, Some(expected), None, Bytes::new()).await?;
        if let Some(lease) = lease {
            // Renewed meanwhile, it is not ended by this; from then on it is not to be renewed.
            self.jetstream.put(subject, Some(lease.sequence), None, Bytes::new()).await?;
        }
        Ok(true)
    }

    async fn renew_once(
        &self,
        (lease, info): (&str, &str),
        is_held: bool,
        ttl: Duration,
    ) -> Result<Renewal, JetStreamError> {
        let is_renewed = self.store_lease(lease, info, is_held).await?;
        let leases = self.names.leases();
        let nodes = self.jetstream.info(Store::Nodes, Some(&leases));
        let (users, clients) =
            (self.jetstream.info(Store::Users, None), self.jetstream.info(Store::Clients, None));
        let (leases, users, clients) = try_join3(nodes, users, clients).await?;
        let subjects = leases.state.subjects.keys();
        let records = subjects.map(|subject| self.jetstream.last(Store::Nodes, subject));
        let (mut nodes, mut ended) = (Vec::new(), Vec::new());
        let records = try_join_all(records).await?;
        let now = self.clock.now();
        for record in records.into_iter().flatten() {
            let Some(lease) = names::last(&record.subject) else { continue };
            let info = String::from_utf8_lossy(&record.payload).into_owned();
            if info.is_empty() || now.saturating_sub(record.time) >= ttl {
                ended.push(lease);
            } else {
                nodes.push(Node { lease, info });
            }
        }
        let present = users.state.subjects_count;
        let epoch = format!("{} {}", users.created, clients.created);
        Ok(Renewal { is_renewed, epoch, nodes, ended, present })
    }

    /// One that has ended but that nobody clears away yet is as good as before: all end while the server is
    /// away.
    async fn store_lease(
        &self,
        lease: &str,
        info: &str,
        is_held: bool,
    ) -> Result<bool, JetStreamError> {
        let (begun, subject) = (Instant::now(), self.names.lease(lease));
        let held = self.hold.lock().clone().filter(|held| held.name == lease);
        let mut expected = match held {
            Some(held) => Some(held.sequence),
            None if is_held => return Ok(false),
            None => None,
        };
        loop {
            let (at, info) = (Instant::now(), Bytes::copy_from_slice(info.as_bytes()));
            let stored = self.jetstream.put(subject.clone(), expected, None, info).await;
            if !error::should_retry(&stored, begun) {
                let Stored { sequence, .. } = stored?;
                *self.hold.lock() = Some(StoredLease { name: lease.to_owned(), sequence });
                return self.set_clock(sequence, at).await.map(|()| true);
            }
            // A renewal that was not known to have come is none of another's.
            let record = self.jetstream.last(Store::Nodes, &subject).await?;
            expected = match record.filter(|record| !record.payload.is_empty()) {
                Some(record) => Some(record.sequence),
                None => return Ok(false),
            };
        }
    }

    /// Sets the clock by what was stored at an instant.
    async fn set_clock(&self, sequence: u64, at: Instant) -> Result<(), JetStreamError> {
        if let Some(record) = self.jetstream.at(Store::Nodes, sequence).await? {
            self.clock.set(record.time, at);
        }
        Ok(())
    }
}

impl OwnLease {
    fn lock(&self) -> MutexGuard<'_, Option<StoredLease>> {
        lock(&self.0)
    }
}
