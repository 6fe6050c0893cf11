//! One connection as its shard sees it, and the slab that holds them all. No socket here.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use slab::Slab;

use crate::clock::Millis;
use crate::message::Encoding;
use crate::outbox::Outbox;
use crate::registry::ConnectionId;
use crate::ring::Share;
use crate::subscription::cursor::Cursor;
use crate::subscription::{Subscriptions, Who};
use crate::user::Identity;

/// What pump, reader, writer and sweep share of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// Whose it is; set at once, or when its peer says so. Nobody's, if that is anonymous.
    identity: OnceCell<Identity>,
    /// The same as channels see it; boxed, as a peer of the chat alone has none.
    who: OnceCell<Box<Who>>,
    /// Where it stands, if it is a stream of several channels.
    pub(crate) cursor: OnceCell<Box<Cursor>>,
    pub(crate) encoding: Encoding,
    pub(crate) outbox: RefCell<Outbox>,
    /// Admissions before this position are not for this connection.
    pub(crate) since: Cell<u64>,
    /// Bytes of the burst in the making that this connection was given ahead of the others.
    pub(crate) given: Cell<u32>,
    pub(crate) life: Life,
    pub(crate) subscriptions: RefCell<Subscriptions>,
    share: OnceCell<Arc<Share>>,
    /// Set when the socket must go at once, whatever waits.
    is_cut: Cell<bool>,
    reader: RefCell<Option<Waker>>,
}

/// Signs of life, and how long they have been missing.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// When the next Ping is due.
    pub(crate) ping_due: Cell<Millis>,
    /// When the Ping that no frame has followed yet reached the kernel, or 0.
    pub(crate) pinged: Cell<Millis>,
    /// When the message that is not yet whole began, or 0.
    pub(crate) unfinished: Cell<Millis>,
    /// Bytes that the reader holds: of it, and of input not yet looked at.
    pub(crate) partial_bytes: Cell<usize>,
    /// Whether the reader waits for room in the ring, deaf to the peer's frames.
    pub(crate) is_paused: Cell<bool>,
    /// When it must have said who it is, or 0.
    pub(crate) stale_at: Cell<Millis>,
    /// When it must close with 3005, if ever.
    pub(crate) expires: Cell<Option<SystemTime>>,
    /// When the first of its subscriptions must end, if any.
    pub(crate) subscription_expires: Cell<Option<SystemTime>>,
    /// Whether it is pinged by frames of RFC 6455 though its protocol has a ping of its own.
    pub(crate) has_frame_pings: Cell<bool>,
    /// Whether its protocol's ping went out, and no pong came yet.
    pub(crate) awaits_pong: Cell<bool>,
}

impl Life {
    /// Has the sweep look at the subscriptions then, if not before.
    pub(crate) fn expire_subscription(&self, at: Option<SystemTime>) {
        let first = self.subscription_expires.get().into_iter().chain(at).min();
        self.subscription_expires.set(first);
    }
}

impl Connection {
    /// A connection of that name, which sees what is admitted from `since` on.
    pub(crate) fn new(id: ConnectionId, identity: Identity, since: u64, life: Life) -> Self {
        life.expires.set(identity.expires);
        let connection = Self::unidentified(id, Encoding::Raw, life);
        connection.identify(Some(identity), since);
        connection
    }

    /// A connection that nothing is for, until it is identified.
    pub(crate) fn unidentified(id: ConnectionId, encoding: Encoding, life: Life) -> Self {
        Self {
            id,
            identity: OnceCell::new(),
            who: OnceCell::new(),
            cursor: OnceCell::new(),
            encoding,
            outbox: RefCell::default(),
            since: Cell::new(NEVER),
            given: Cell::new(0),
            life,
            subscriptions: RefCell::default(),
            share: OnceCell::new(),
            is_cut: Cell::new(false),
            reader: RefCell::default(),
        }
    }

    /// Says whose it is, once, if it is anyone's; what is admitted from `since` on is for it.
    pub(crate) fn identify(&self, identity: Option<Identity>, since: u64) {
        if let Some(identity) = identity {
            // It is asked before whether it was identified.
            let _ = self.identity.set(identity);
        }
        self.since.set(since);
    }

    /// Whether it was said whose it is.
    pub(crate) fn is_identified(&self) -> bool {
        self.since.get() != NEVER
    }

    /// Whose it is, if that is known yet.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }

    /// Says who it is to channels, once.
    pub(crate) fn introduce(&self, who: Who) {
        // It is asked before whether it was introduced.
        let _ = self.who.set(Box::new(who));
    }

    /// Who it is to channels, if that is known yet.
    pub(crate) fn who(&self) -> Option<&Who> {
        self.who.get().map(|who| &**who)
    }

    /// What it may hold of the ring.
    pub(crate) fn share(&self) -> &Arc<Share> {
        self.share.get_or_init(Arc::default)
    }

    /// Bytes that it alone could give back.
    pub(crate) fn held(&self) -> usize {
        self.outbox.borrow().held() + self.life.partial_bytes.get()
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// Has both tasks let go of the socket.
    pub(crate) fn cut(&self) -> usize {
        self.is_cut.set(true);
        self.wake_reader();
        self.outbox.borrow_mut().abandon()
    }

    /// Resolves once the connection closes; for the reader.
    pub(crate) async fn closed(&self) {
        poll_fn(|context| {
            self.register_reader(context);
            let is_closing = self.outbox.borrow().is_closing();
            if is_closing { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Resolves once no more than so many bytes wait for the peer; for a reader that is paused.
    pub(crate) async fn outbox_below(&self, bytes: usize) {
        poll_fn(|context| {
            self.register_reader(context);
            let held = self.outbox.borrow().held();
            if held <= bytes { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Has [`Connection::wake_reader`] wake this task, whatever it waits for.
    pub(crate) fn register_reader(&self, context: &Context<'_>) {
        match &mut *self.reader.borrow_mut() {
            Some(reader) => reader.clone_from(context.waker()),
            reader => *reader = Some(context.waker().clone()),
        }
    }

    pub(crate) fn wake_reader(&self) {
        if let Some(reader) = &*self.reader.borrow() {
            reader.wake_by_ref();
        }
    }
}

/// The position of no admission.
const NEVER: u64 = u64::MAX;

/// A shard's connections: those that count, so none that closes.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: RefCell<Slab<Rc<Connection>>>,
    /// How many there are of each encoding.
    counts: [Cell<usize>; Encoding::ALL.len()],
    generation: Cell<u32>,
}

impl Connections {
    /// Adds the connection that `make` builds under the name it is given.
    pub(crate) fn insert(
        &self,
        shard: u16,
        make: impl FnOnce(ConnectionId) -> Connection,
    ) -> Rc<Connection> {
        let mut slots = self.slots.borrow_mut();
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        let entry = slots.vacant_entry();
        let id = ConnectionId { shard, slot: entry.key() as u32, generation };
        let connection = entry.insert(Rc::new(make(id))).clone();
        self.count(connection.encoding).update(|count| count + 1);
        connection
    }

    /// Removes a connection; false if it was gone.
    pub(crate) fn remove(&self, id: ConnectionId) -> bool {
        let mut slots = self.slots.borrow_mut();
        let holds = slots.get(id.slot as usize).is_some_and(|connection| connection.id == id);
        if holds {
            let connection = slots.remove(id.slot as usize);
            self.count(connection.encoding).update(|count| count - 1);
        }
        holds
    }

    /// Whether any peer has its messages in an encoding.
    pub(crate) fn speak(&self, encoding: Encoding) -> bool {
        self.count(encoding).get() > 0
    }

    /// The connection of that name, unless its generation is gone.
    pub(crate) fn get(&self, id: ConnectionId) -> Option<Rc<Connection>> {
        let slots = self.slots.borrow();
        slots.get(id.slot as usize).filter(|connection| connection.id == id).cloned()
    }

    /// All of them; none may be added or removed meanwhile.
    pub(crate) fn slots(&self) -> Ref<'_, Slab<Rc<Connection>>> {
        self.slots.borrow()
    }

    fn count(&self, encoding: Encoding) -> &Cell<usize> {
        &self.counts[encoding as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::UserId;

    #[test]
    fn a_name_does_not_reach_the_slots_next_tenant() {
        let connections = Connections::default();
        let insert = || {
            connections.insert(0, |id| {
                Connection::new(id, Identity::new(UserId::from(1)), 0, Life::default())
            })
        };
        let first = insert();
        assert!(connections.remove(first.id));
        let second = insert();
        assert_eq!(first.id.slot, second.id.slot);
        assert!(connections.get(first.id).is_none());
        assert!(!connections.remove(first.id));
        assert!(connections.get(second.id).is_some());
    }
}
