//! What the broker has of a user, here or on a channel: the connections on each node, by its lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::presence::UserChange;
use crate::user::UserId;

/// As JSON, which scripts at the broker change too: `{"<lease>":"<connections>:<name>"}`, and without the name
/// for a user on a channel.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct UserRecord(BTreeMap<String, String>);

impl UserRecord {
    /// Reads one; `None` if it is none.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// What stands under a lease after a change; `None` if nothing does.
    pub(super) fn value(UserChange { name, connections, .. }: &UserChange) -> Option<String> {
        connections.map(|connections| format!("{connections}:{name}"))
    }

    /// The same with another value under a lease, or none; `None` if nothing is left.
    pub(super) fn with(mut self, lease: &str, value: Option<String>) -> Option<Self> {
        match value {
            Some(value) => self.0.insert(lease.to_owned(), value),
            None => self.0.remove(lease),
        };
        (!self.0.is_empty()).then_some(self)
    }

    /// Connections of the user, but for those under leases that have ended.
    pub(super) fn connections(&self, ended: &[String]) -> usize {
        let counts = self.0.iter().filter(|(lease, _)| !ended.contains(lease));
        counts.filter_map(|(_, value)| value.split_once(':')?.0.parse::<usize>().ok()).sum()
    }

    /// The change by which what stands under a lease goes, if anything does.
    pub(super) fn end(&self, lease: &str, user: UserId) -> Option<UserChange> {
        let (_, name) = self.0.get(lease)?.split_once(':')?;
        let (lease, name) = (lease.into(), Arc::from(name));
        Some(UserChange { lease, user, name, connections: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_under_leases_that_last() {
        let entry =
            UserRecord::parse(br#"{"a.0":"2:Ann: B","b.0":"3:Ann","c.0":"strange"}"#).unwrap();
        assert_eq!(entry.connections(&[]), 5);
        assert_eq!(entry.connections(&["b.0".to_owned()]), 2);
        let end = entry.end("a.0", 1.into()).unwrap();
        assert_eq!((&*end.name, end.connections), ("Ann: B", None));
        assert!(entry.end("d.0", 1.into()).is_none());
    }

    #[test]
    fn a_record_ends_with_the_last_value() {
        let record = UserRecord::default().with("a.0", Some("1:Ann".to_owned())).unwrap();
        assert_eq!(record.connections(&[]), 1);
        assert!(record.with("a.0", None).is_none());
    }
}
