//! One connection as its shard sees it, and the slab that holds them all. No socket here.

use std::cell::{Cell, Ref, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::clock::Millis;
use crate::outbox::Outbox;
use crate::registry::ConnectionId;
use crate::user::Identity;

/// What pump, reader, writer and sweep share of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) identity: Identity,
    pub(crate) outbox: RefCell<Outbox>,
    /// Admissions before this position are not for this connection.
    pub(crate) since: u64,
    /// Bytes of the burst in the making that this connection was given ahead of the others.
    pub(crate) given: Cell<u32>,
    pub(crate) life: Life,
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
}

impl Connection {
    /// A connection of that name, which sees what is admitted from `since` on.
    pub(crate) fn new(id: ConnectionId, identity: Identity, since: u64, life: Life) -> Self {
        Self {
            id,
            identity,
            outbox: RefCell::default(),
            since,
            given: Cell::new(0),
            life,
            is_cut: Cell::new(false),
            reader: RefCell::default(),
        }
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

/// A shard's connections: those that count, so none that closes.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: RefCell<Slab<Rc<Connection>>>,
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
        entry.insert(Rc::new(make(id))).clone()
    }

    /// Removes a connection; false if it was gone.
    pub(crate) fn remove(&self, id: ConnectionId) -> bool {
        let mut slots = self.slots.borrow_mut();
        let holds = slots.get(id.slot as usize).is_some_and(|connection| connection.id == id);
        if holds {
            slots.remove(id.slot as usize);
        }
        holds
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
