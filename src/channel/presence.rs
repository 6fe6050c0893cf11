//! Who is on a channel: connections, and the users whose they are.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocol::centrifuge::ClientInfo;

/// The connections on a channel, and how many each user has there.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    clients: HashMap<Box<str>, Arc<ClientInfo>>,
    users: HashMap<Box<str>, usize>,
}

impl Presence {
    /// Notes a connection; true if it is its user's first.
    pub(crate) fn enter(&mut self, info: Arc<ClientInfo>) -> bool {
        let connections = self.users.entry(info.user.as_str().into()).or_default();
        let is_new = self.clients.insert(info.client.as_str().into(), info).is_none();
        *connections += usize::from(is_new);
        is_new && *connections == 1
    }

    /// Forgets a connection, if it was noted; says whether it was its user's last.
    pub(crate) fn leave(&mut self, client: &str) -> Option<(Arc<ClientInfo>, bool)> {
        let info = self.clients.remove(client)?;
        let connections = self.users.get_mut(info.user.as_str())?;
        *connections -= 1;
        let is_last = *connections == 0;
        if is_last {
            self.users.remove(info.user.as_str());
        }
        Some((info, is_last))
    }

    /// The connections.
    pub(crate) fn clients(&self) -> impl ExactSizeIterator<Item = &Arc<ClientInfo>> {
        self.clients.values()
    }

    /// A connection, if it is noted.
    pub(crate) fn client(&self, client: &str) -> Option<&Arc<ClientInfo>> {
        self.clients.get(client)
    }

    /// Connections of a user.
    pub(crate) fn connections_of(&self, user: &str) -> usize {
        self.users.get(user).copied().unwrap_or(0)
    }

    /// How many users there are, all anonymous ones being one.
    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(user: &str, client: &str) -> Arc<ClientInfo> {
        let (user, client) = (user.to_owned(), client.to_owned());
        Arc::new(ClientInfo { user, client, conn_info: None, chan_info: None })
    }

    #[test]
    fn a_user_is_there_from_its_first_connection_to_its_last() {
        let mut presence = Presence::default();
        assert!(presence.enter(info("42", "a")));
        assert!(!presence.enter(info("42", "b")));
        assert!(presence.enter(info("43", "c")));
        assert_eq!((presence.clients().len(), presence.users()), (3, 2));
        let left = |left: Option<(Arc<ClientInfo>, bool)>| {
            left.map(|(info, last)| (info.client.clone(), last))
        };
        assert_eq!(left(presence.leave("a")), Some(("a".into(), false)));
        assert_eq!(left(presence.leave("a")), None);
        assert_eq!(left(presence.leave("b")), Some(("b".into(), true)));
        assert_eq!((presence.clients().len(), presence.users()), (1, 1));
    }
}
