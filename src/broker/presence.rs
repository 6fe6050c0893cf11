//! Who is here, as all nodes know it.
//!
//! What a node has entered stands under its lease, which it renews every second. A node that goes
//! without a word loses it, and all that stands under it goes at once: others pass it over, and one of them
//! clears it away. One that comes back after that is told so, and enters its own anew under another name.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::topic::Topic;
use crate::agenda::Agenda;
use crate::config::JoinLeave;
use crate::lock::lock;
use crate::protocol::centrifuge::ClientInfo;
use crate::user::UserId;

/// What changed of who is here, and what is known of all nodes.
#[derive(Debug)]
pub(crate) struct Presence {
    /// Users of this node who came, went, or have another number of connections.
    pub(super) users: Agenda<UserId>,
    /// Connections of this node that came to a channel with presence, or left it.
    pub(super) clients: Agenda<Client>,
    /// Leases that have ended.
    pub(super) to_reap: Agenda<Arc<str>>,
    /// Users who are present on any node.
    present: AtomicUsize,
    lease: Mutex<Lease>,
    is_retired: AtomicBool,
    /// Told when it is sure that the lease is held.
    pub(super) held: Notify,
    uid: Arc<str>,
}

/// A connection on a channel: the channel's name, and what names the connection.
pub(crate) type Client = (Arc<str>, Arc<str>);

/// Under which name this node enters, and who else is alive.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    /// This run of this node, and how often it lost its lease.
    pub(super) name: Arc<str>,
    pub(super) losses: u64,
    /// Whether the one before it went with all that the broker had, so that nobody was told that anyone
    /// left.
    pub(super) is_quiet: bool,
    /// Whether it was renewed under that name.
    is_held: bool,
    /// Whether it was in this session: before, it may be lost.
    pub(super) is_sure: bool,
    epoch: String,
    nodes: Vec<Node>,
    ended: Vec<String>,
}

/// A node that is alive.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Under which its own stands.
    pub(crate) lease: String,
    /// What it says of itself, as JSON.
    pub(crate) info: String,
}

/// What a renewal came to.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// Whether the lease is held; if not, it was lost before.
    pub(crate) is_renewed: bool,
    /// Another one if all was lost.
    pub(crate) epoch: String,
    pub(crate) nodes: Vec<Node>,
    /// Leases that have ended, and are not cleared away yet.
    pub(crate) ended: Vec<String>,
    /// Users who are present.
    pub(crate) present: usize,
}

/// Another number of connections of a user on a node.
#[derive(Debug)]
pub(crate) struct UserChange {
    /// Under which it stands.
    pub(crate) lease: Arc<str>,
    pub(crate) user: UserId,
    pub(crate) name: Arc<str>,
    /// `None` if it is gone; none, if it may come back.
    pub(crate) connections: Option<usize>,
}

/// A connection that came to a channel, or left it.
#[derive(Debug)]
pub(crate) struct ClientChange {
    /// Under which it stands.
    pub(crate) lease: Arc<str>,
    pub(crate) topic: Topic,
    pub(crate) client: Client,
    pub(crate) info: Arc<ClientInfo>,
    pub(crate) is_here: bool,
    /// Connections that its user has on the channel on that node.
    pub(crate) connections: usize,
    pub(crate) join_leave: JoinLeave,
}

/// What a change was among all nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Whether the user came with it, or went.
    pub(crate) is_turn: bool,
    /// Users who are present then.
    pub(crate) present: usize,
}

impl Node {
    /// Which run of a node it is.
    pub(crate) fn uid(&self) -> &str {
        self.lease.rsplit_once('.').map_or(&*self.lease, |(uid, _)| uid)
    }
}

impl Presence {
    pub(super) fn new(uid: &str) -> Self {
        let lease = Lease {
            name: lease_name(uid, 0),
            losses: 0,
            is_quiet: false,
            is_held: false,
            is_sure: false,
            epoch: String::new(),
            nodes: Vec::new(),
            ended: Vec::new(),
        };
        Self {
            users: Agenda::default(),
            clients: Agenda::default(),
            to_reap: Agenda::default(),
            present: AtomicUsize::new(0),
            lease: Mutex::new(lease),
            is_retired: AtomicBool::new(false),
            held: Notify::new(),
            uid: uid.into(),
        }
    }

    /// Notes that a user of this node came or went, or has another number of connections.
    pub(crate) fn note_user(&self, user: &UserId) {
        self.users.add(user.clone());
    }

    /// Notes that a connection came to a channel with presence, or left it.
    pub(crate) fn note_client(&self, channel: &Arc<str>, client: &Arc<str>) {
        self.clients.add((channel.clone(), client.clone()));
    }

    /// Users who are present on any node, as last heard.
    pub(crate) fn present(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    pub(super) fn set_present(&self, present: usize) {
        self.present.store(present, Ordering::Relaxed);
    }

    /// The nodes that are alive, this one included, as last heard.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.lease().nodes.clone()
    }

    /// Leases that have ended, as last heard, and are not cleared away yet.
    pub(super) fn ended(&self) -> Vec<String> {
        self.lease().ended.clone()
    }

    /// The name of this node's lease, and whether it is held already.
    pub(super) fn lease_to_renew(&self) -> (Arc<str>, bool) {
        let lease = self.lease();
        (lease.name.clone(), lease.is_held)
    }

    /// Whether a lease has ended, as last heard, and is not cleared away yet.
    pub(super) fn has_ended(&self, name: &str) -> bool {
        self.lease().ended.iter().any(|ended| ended == name)
    }

    /// The node ends: its lease is not renewed any more. Returns its name.
    pub(super) fn retire(&self) -> Arc<str> {
        self.is_retired.store(true, Ordering::Relaxed);
        self.lease().name.clone()
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    pub(super) fn lease(&self) -> MutexGuard<'_, Lease> {
        lock(&self.lease)
    }

    /// The session is lost.
    pub(super) fn lose(&self) {
        self.lease().is_sure = false;
    }

    /// Takes note of what a renewal came to.
    pub(super) fn renewed(&self, renewal: Renewal) {
        let Renewal { is_renewed, epoch, nodes, ended, present } = renewal;
        self.set_present(present);
        let mut lease = self.lease();
        let has_lost_all = !lease.epoch.is_empty() && epoch != lease.epoch;
        let is_renewed = is_renewed && !has_lost_all;
        if !is_renewed {
            // What may have been entered under it after it was cleared away is to go too.
            self.to_reap.add(lease.name.clone());
            lease.losses += 1;
            lease.name = lease_name(&self.uid, lease.losses);
            lease.is_quiet = has_lost_all;
            tracing::warn!(
                has_lost_all,
                "the broker let go of what this node had entered; entering it anew"
            );
        } else if !lease.is_sure {
            self.held.notify_one();
        }
        (lease.is_held, lease.is_sure) = (is_renewed, is_renewed);
        (lease.epoch, lease.nodes) = (epoch, nodes);
        ended.iter().for_each(|lease| self.to_reap.add(lease.as_str().into()));
        lease.ended = ended;
    }
}

fn lease_name(uid: &str, losses: u64) -> Arc<str> {
    format!("{uid}.{losses}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal(is_renewed: bool, epoch: &str, ended: &[&str]) -> Renewal {
        let ended = ended.iter().map(|&lease| lease.to_owned()).collect();
        Renewal { is_renewed, epoch: epoch.to_owned(), nodes: Vec::new(), ended, present: 0 }
    }

    #[test]
    fn a_lease_that_was_lost_goes_on_under_another_name() {
        let presence = Presence::new("n");
        presence.renewed(renewal(true, "e", &[]));
        assert_eq!(presence.lease_to_renew(), ("n.0".into(), true));
        presence.renewed(renewal(false, "e", &[]));
        assert_eq!(presence.lease_to_renew(), ("n.1".into(), false));
        assert!(!presence.lease().is_quiet);
        presence.renewed(renewal(true, "e", &[]));
        // What was entered can be gone though the lease is not.
        presence.renewed(renewal(true, "another", &[]));
        assert_eq!(presence.lease_to_renew(), ("n.2".into(), false));
        assert!(presence.lease().is_quiet);
    }

    #[tokio::test]
    async fn what_has_ended_is_to_be_cleared_away_and_so_is_what_was_lost() {
        let presence = Presence::new("n");
        presence.renewed(renewal(true, "e", &["other.0"]));
        assert!(presence.has_ended("other.0") && !presence.has_ended("n.0"));
        presence.renewed(renewal(false, "e", &[]));
        let mut leases = presence.to_reap.take(9).await.items().to_vec();
        leases.sort_unstable();
        assert_eq!(leases, ["n.0".into(), "other.0".into()] as [Arc<str>; 2]);
    }
}
