//! What the broker has of a user: the connections on each node and the name, by the node's lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::UserChange;
use crate::user::UserId;

/// As JSON, which scripts at the broker change too: `{"<lease>":"<connections>:<name>"}`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Entry(pub(super) BTreeMap<String, String>);

impl Entry {
    /// Reads one; `None` if it is none.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// What stands under a lease after a change; `None` if nothing does.
    pub(super) fn value(UserChange { name, connections, .. }: &UserChange) -> Option<String> {
        connections.map(|connections| format!("{connections}:{name}"))
    }

    /// Connections of the user, but for those under leases that have ended.
    pub(super) fn connections(&self, ended: &[String]) -> usize {
        let counts = self.0.iter().filter(|(lease, _)| !ended.contains(lease));
        counts.filter_map(|(_, value)| value.split_once(':')?.0.parse::<usize>().ok()).sum()
    }

    /// The change by which what stands under a lease goes, if anything does.
    pub(super) fn end(&self, lease: &str, user: UserId) -> Option<UserChange> {
        let (_, name) = self.0.get(lease)?.split_once(':')?;
        let (node, name) = (lease.into(), Arc::from(name));
        Some(UserChange { node, user, name, connections: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_under_leases_that_last() {
        let entry = Entry::parse(br#"{"a.0":"2:Ann: B","b.0":"3:Ann","c.0":"strange"}"#).unwrap();
        assert_eq!(entry.connections(&[]), 5);
        assert_eq!(entry.connections(&["b.0".to_owned()]), 2);
        let end = entry.end("a.0", 1.into()).unwrap();
        assert_eq!((&*end.name, end.connections), ("Ann: B", None));
        assert!(entry.end("d.0", 1.into()).is_none());
    }
}
