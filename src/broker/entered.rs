//! Who of this node is entered at the broker, over all sessions.

use std::collections::HashMap;
use std::sync::Arc;

use super::presence::{Client, ClientChange, Lease, Presence, Turn, UserChange};
use super::topic_of;
use crate::config::JoinLeave;
use crate::hub::Inner;
use crate::protocol::centrifuge::ClientInfo;
use crate::user::UserId;

/// Who is not in here is not entered there.
#[derive(Debug, Default)]
pub(super) struct Entered {
    /// How many leases were lost before.
    losses: u64,
    /// With their names, and how many connections they have.
    users: HashMap<UserId, Tracked<(Arc<str>, usize)>>,
    clients: HashMap<Client, Tracked<Arc<ClientInfo>>>,
}

#[derive(Debug)]
struct Tracked<T> {
    what: T,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Sent without an answer so far: what is perhaps entered is to be taken out too.
    Unsure {
        was_entered: bool,
    },
    Entered,
    /// Under a lease that was lost; quietly, if nobody was told that it is gone.
    Lost {
        is_quiet: bool,
    },
}

impl Entered {
    /// What is to be entered of a user, if anything.
    pub(super) fn user_change(
        &self,
        hub: &Inner,
        lease: &Lease,
        user: &UserId,
    ) -> Option<UserChange> {
        let (here, had) = (hub.registry.presence(user), self.users.get(user));
        let here = here.or_else(|| had.and_then(Tracked::lost_quietly).cloned());
        let (name, _) = here.as_ref().or(had.map(|entry| &entry.what))?;
        if had.is_some_and(|had| had.is_entered() && here.as_ref() == Some(&had.what)) {
            return None;
        }
        Some(UserChange {
            lease: lease.name.clone(),
            user: user.clone(),
            name: name.clone(),
            connections: here.as_ref().map(|(_, connections)| *connections),
        })
    }

    /// What is to be entered of a connection on a channel, if anything.
    pub(super) fn client_change(
        &self,
        hub: &Inner,
        lease: &Lease,
        client: &Client,
    ) -> Option<ClientChange> {
        let (channel, name) = client;
        let join_leave = hub.config.namespace(channel)?.join_leave;
        let here = hub.channels.with(channel, |_, state| state.client(name)).flatten();
        let had = self.clients.get(client);
        let lost = had.and_then(Tracked::lost_quietly);
        let here = here.or_else(|| lost.cloned());
        let is_here = here.is_some();
        if is_here && had.is_some_and(Tracked::is_entered) {
            return None;
        }
        let info = here.or_else(|| had.map(|had| had.what.clone()))?;
        let connections = hub.channels.with(channel, |_, state| state.connections_of(&info.user));
        Some(ClientChange {
            lease: lease.name.clone(),
            topic: topic_of(hub, channel),
            client: client.clone(),
            info,
            is_here,
            connections: connections.unwrap_or(0).max(lost.is_some().into()),
            join_leave: if lost.is_some() { JoinLeave::Off } else { join_leave },
        })
    }

    /// A change of a user is sent.
    pub(super) fn send_user(&mut self, change: &UserChange) {
        let what = (change.name.clone(), change.connections.unwrap_or(0));
        let entry = self.users.entry(change.user.clone());
        entry.or_insert(Tracked { what, standing: Standing::NEW }).send();
    }

    /// A change of a connection is sent.
    pub(super) fn send_client(&mut self, change: &ClientChange) {
        let entry = self.clients.entry(change.client.clone());
        let what = change.info.clone();
        entry.or_insert(Tracked { what, standing: Standing::NEW }).send();
    }

    /// A user was entered; tells of it what is to be told. Whether it is to be looked at again, once other nodes
    /// have entered theirs too.
    pub(super) fn note_user(&mut self, hub: &Inner, change: &UserChange, turn: Turn) -> bool {
        let UserChange { user, name, connections, .. } = change;
        let (is_here, had) = match *connections {
            Some(connections) => {
                let what = (name.clone(), connections);
                let entry = Tracked { what, standing: Standing::Entered };
                (true, self.users.insert(user.clone(), entry))
            }
            None => (false, self.users.remove(user)),
        };
        let before = had.map_or(Standing::NEW, |entry| entry.standing);
        let was_lost_quietly = before == Standing::Lost { is_quiet: true };
        if was_lost_quietly {
            // Others think of it what they thought before.
        } else if turn.is_turn {
            hub.tell_turn(change, turn.present);
        } else if is_here && before == Standing::NEW {
            hub.tell_alone(change, turn.present);
        }
        was_lost_quietly
    }

    /// A connection was entered; whether it is to be looked at again, as a user.
    pub(super) fn note_client(&mut self, change: ClientChange) -> bool {
        let had = if change.is_here {
            let entry = Tracked { what: change.info, standing: Standing::Entered };
            self.clients.insert(change.client, entry)
        } else {
            self.clients.remove(&change.client)
        };
        had.is_some_and(|had| had.lost_quietly().is_some())
    }

    /// If a lease was lost since, all that stood under it is to be entered again.
    pub(super) fn begin_anew(&mut self, presence: &Presence, lease: &Lease) {
        if self.losses == lease.losses {
            return;
        }
        self.losses = lease.losses;
        for (user, entry) in &mut self.users {
            entry.lose(lease.is_quiet);
            presence.users.add(user.clone());
        }
        for (client, entry) in &mut self.clients {
            entry.lose(lease.is_quiet);
            presence.clients.add(client.clone());
        }
    }
}

impl Standing {
    const NEW: Self = Self::Unsure { was_entered: false };
}

impl<T> Tracked<T> {
    fn is_entered(&self) -> bool {
        self.standing == Standing::Entered
    }

    /// What went with all that the broker had. It is entered as it was, though it be gone by now: only when all
    /// nodes have entered theirs is it known whether anyone left.
    fn lost_quietly(&self) -> Option<&T> {
        (self.standing == Standing::Lost { is_quiet: true }).then_some(&self.what)
    }

    fn send(&mut self) {
        if self.is_entered() {
            self.standing = Standing::Unsure { was_entered: true };
        }
    }

    fn lose(&mut self, is_quiet: bool) {
        if self.standing != Standing::NEW {
            self.standing = Standing::Lost { is_quiet };
        }
    }
}
