//! One thread, its runtime, and the connections that it alone touches.

mod drain;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use tokio::runtime::{Builder, LocalRuntime};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::clock::{Clock, Millis, millis};
use crate::close::CloseReason;
use crate::config::Limits;
use crate::connection::{Connection, Connections, Life};
use crate::frame;
use crate::heartbeat;
use crate::hub::Inner;
use crate::inbox::{Adopted, Command};
use crate::message::{Encoding, Message};
use crate::metrics::ShardStats;
use crate::outbox::{Budget, Burst, Push};
use crate::presence::Unsettled;
use crate::protocol::{Protocol, chat, sse};
use crate::pump::{self, Batch, Turn};
use crate::reader::{self, Reader, Speaker};
use crate::registry::{ConnectionId, Duty};
use crate::ring;
use crate::server;
use crate::socket::Socket;
use crate::subscription::subscribers::Subscribers;
use crate::user::Identity;
use crate::writer::Writer;

/// Starts shard number `index` of a hub on a thread of its own.
pub(crate) fn start(hub: &Arc<Inner>, index: usize) -> io::Result<()> {
    let ring = hub.ring.subscribe();
    let hub = hub.clone();
    let (started, outcome) = mpsc::sync_channel(1);
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => {
                let _ = started.send(Ok(()));
                run(&runtime, hub, index, ring);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    })?;
    outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))
}

fn run(runtime: &LocalRuntime, hub: Arc<Inner>, index: usize, ring: ring::Receiver) {
    let shard = Rc::new(Shard::new(hub, index));
    let vital = Vital(shard.clone());
    let stopped = shard.hub.stopped();
    runtime.block_on(async {
        spawn_vital(&shard, pump::run(shard.clone(), ring));
        spawn_vital(&shard, heartbeat::run(shard.clone()));
        spawn_vital(&shard, lose_the_gone(shard.clone()));
        spawn_local(drain::run(shard.clone()));
        let arrivals = async {
            loop {
                shard.receive().await;
                // Each arrival is some work, and the pump is not to wait for a storm of them.
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = arrivals => {}
            () = stopped => shard.is_stopping.set(true),
        }
    });
    drop(vital);
}

/// Runs a task without which the shard only looks alive.
fn spawn_vital(shard: &Rc<Shard>, task: impl Future<Output = ()> + 'static) {
    let vital = Vital(shard.clone());
    spawn_local(async move {
        let _vital = vital;
        task.await;
    });
}

/// Aborts the process when dropped before the shard stops: a dead pump must not look healthy.
struct Vital(Rc<Shard>);

impl Drop for Vital {
    fn drop(&mut self) {
        if !self.0.is_stopping.get() {
            tracing::error!(shard = self.0.index, "a vital task ended; aborting");
            std::process::abort();
        }
    }
}

/// What the tasks of one shard share; none of it leaves the thread but `hub`.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) index: u16,
    pub(crate) hub: Arc<Inner>,
    pub(crate) clock: Clock,
    pub(crate) connections: Connections,
    pub(crate) subscribers: Subscribers,
    pub(crate) budget: Rc<Budget>,
    /// Where every reader reads into, since none keeps a buffer of its own.
    pub(crate) scratch: RefCell<Box<[u8]>>,
    pub(crate) unsettled: RefCell<Unsettled>,
    closing: RefCell<VecDeque<(Millis, Weak<Connection>)>>,
    /// Connections whose peer is gone, and that are still to be forgotten.
    gone: RefCell<VecDeque<Rc<Connection>>>,
    has_gone: Notify,
    max_held: usize,
    is_stopping: Cell<bool>,
}

impl Shard {
    fn new(hub: Arc<Inner>, index: usize) -> Self {
        let Limits { memory, ring_bytes, .. } = hub.config.limits;
        Self {
            index: index as u16,
            clock: Clock::new(),
            connections: Connections::default(),
            subscribers: Subscribers::default(),
            budget: Rc::default(),
            scratch: RefCell::new(vec![0; reader::SCRATCH_BYTES].into()),
            unsettled: RefCell::default(),
            closing: RefCell::default(),
            gone: RefCell::default(),
            has_gone: Notify::new(),
            max_held: (memory - ring_bytes) / hub.shards.len(),
            is_stopping: Cell::new(false),
            hub,
        }
    }

    pub(crate) fn stats(&self) -> &ShardStats {
        &self.hub.shards[usize::from(self.index)].stats
    }

    /// Makes a socket a connection: counted, in the user map, announced, with its two tasks.
    pub(crate) fn open(
        self: &Rc<Self>,
        socket: Socket,
        identity: Identity,
        protocol: Box<dyn Protocol>,
        early: &[u8],
    ) {
        let connection = self.register(identity);
        self.start(socket, connection, Speaker::Raw(protocol), early);
    }

    /// The same for a peer of the Centrifuge protocol, which says later who it is.
    pub(crate) fn open_client(
        self: &Rc<Self>,
        socket: Socket,
        has_frame_pings: bool,
        early: &[u8],
    ) {
        let connection = self.connections.insert(self.index, |id| {
            let life = self.new_life(id);
            let patience = self.hub.config.limits.handshake_timeout;
            life.stale_at.set(self.clock.now() + millis(patience));
            life.has_frame_pings.set(has_frame_pings);
            Connection::unidentified(id, Encoding::Centrifuge, life)
        });
        let client = uuid::Uuid::new_v4().to_string().into();
        self.start(socket, connection, Speaker::Client(client), early);
    }

    fn start(
        self: &Rc<Self>,
        socket: Socket,
        connection: Rc<Connection>,
        speaker: Speaker,
        early: &[u8],
    ) {
        let socket = Rc::new(socket);
        let mut reader =
            Reader::new(self.clone(), connection.clone(), socket.clone(), speaker, early);
        // A method that took the reader would hold it twice, as argument and as variable.
        spawn_local(async move { reader.run().await });
        spawn_local(Writer { shard: self.clone(), connection, socket }.run());
    }

    /// Closes a connection: it stops counting at once, then its peer is told why and has
    /// `limits.close_timeout` to answer. What waits goes out first, unless the peer does not read.
    pub(crate) fn close(&self, connection: &Rc<Connection>, reason: &CloseReason) {
        self.finish(connection, reason, reason.code(), reason.is_eviction());
    }

    /// Answers a peer's Close; what that peer sends after it is discarded.
    pub(crate) fn answer_close(&self, connection: &Rc<Connection>, code: Option<u16>) {
        // Counted as the peer's doing, whatever code it chose.
        self.finish(connection, &CloseReason::answer(code), CloseReason::NORMAL.code(), true);
    }

    /// Ends a connection whose socket is of no more use.
    pub(crate) fn lose(&self, connection: &Rc<Connection>, code: u16) {
        self.forget(connection, code);
        let dropped = connection.outbox.borrow_mut().abandon();
        self.stats().dropped(dropped);
        connection.wake_reader();
    }

    /// The same for a peer that went without a Close, soon: when thousands go at once, the pump
    /// has its turns between them.
    pub(crate) fn lose_in_turn(&self, connection: &Rc<Connection>) {
        self.gone.borrow_mut().push_back(connection.clone());
        self.has_gone.notify_one();
    }

    /// Cuts the sockets of those that had their time to close.
    pub(crate) fn cut_overdue(&self) {
        let now = self.clock.now();
        let latest = now + millis(self.hub.config.limits.close_timeout);
        let mut closing = self.closing.borrow_mut();
        // The clock may have been turned back since a deadline was set.
        closing.iter_mut().for_each(|(deadline, _)| *deadline = latest.min(*deadline));
        while closing.front().is_some_and(|(deadline, _)| *deadline <= now) {
            if let Some(connection) = closing.pop_front().and_then(|(_, weak)| weak.upgrade()) {
                self.stats().dropped(connection.cut());
            }
        }
    }

    /// Puts a batch into the outboxes and closes whom it is to close.
    pub(crate) fn deliver(&self, batch: &mut Batch) {
        if let Some(entry) = batch.entries.first() {
            self.stats().lagged(entry.admitted.elapsed());
        }
        let turn = Turn {
            shard: self.index,
            connections: &self.connections,
            subscribers: &self.subscribers,
            budget: &self.budget,
            max_bytes: self.hub.config.limits.outbox_bytes,
            now: self.clock.now(),
        };
        let outcome = turn.deliver(batch);
        batch.clear();
        self.stats().delivered(outcome.deliveries, outcome.stale);
        self.stats().gapped(outcome.gapped);
        for (connection, reason) in outcome.closes {
            self.close(&connection, &reason);
        }
        for (connection, channel) in outcome.gaps {
            self.interrupt(&connection, channel);
        }
        for (order, targets) in outcome.orders {
            self.carry_out(&order, &targets);
        }
        self.relieve();
    }

    /// Queues a message for one connection, past the ring.
    pub(crate) fn reply(&self, connection: &Rc<Connection>, message: &Message) {
        let burst = Burst::lone(message.frame().clone(), self.clock.now(), &self.budget);
        self.queue(connection, &burst, self.hub.config.limits.outbox_bytes);
    }

    /// Queues a burst for one connection, past the ring.
    pub(crate) fn queue(&self, connection: &Rc<Connection>, burst: &Rc<Burst>, max_bytes: usize) {
        let push = connection.outbox.borrow_mut().push(burst, 0, burst.len(), max_bytes);
        match push {
            Push::Queued => self.stats().delivered(burst.frames_from(0) as u64, 0),
            Push::Full => self.close(connection, &CloseReason::SLOW),
            Push::Closing => {}
        }
    }

    /// Ends the largest laggards if the shard holds more than its share of the memory.
    pub(crate) fn relieve(&self) {
        if self.budget.used() > self.max_held {
            self.evict_laggards();
        }
        self.stats().holds(self.budget.used());
    }

    /// One look at everybody, however many must go. Who closes already and still holds much is cut.
    fn evict_laggards(&self) {
        let slots = self.connections.slots();
        let mut laggards: Vec<_> = slots.iter().map(|(_, open)| open.clone()).collect();
        drop(slots);
        laggards.extend(self.closing.borrow().iter().filter_map(|(_, weak)| weak.upgrade()));
        // Those who go anyway come first: what they keep must not cost a living one its place.
        laggards.sort_by_cached_key(|connection| {
            let held = connection.held();
            let is_leaving = connection.outbox.borrow().is_closing() && held > LAST_WORDS_MAX;
            (!is_leaving, Reverse(held))
        });
        for connection in laggards {
            if self.budget.used() <= self.max_held || connection.held() == 0 {
                break;
            }
            let is_closing = connection.outbox.borrow().is_closing();
            if is_closing {
                self.stats().dropped(connection.cut());
            } else {
                self.close(&connection, &CloseReason::SLOW);
                // The rest of a large frame in flight would hold more than was given back.
                if connection.held() > LAST_WORDS_MAX {
                    self.stats().dropped(connection.cut());
                }
            }
        }
    }

    async fn receive(self: &Rc<Self>) {
        match self.hub.shards[usize::from(self.index)].receive().await {
            Command::Accept(stream, permit, door) => match Socket::new(stream, permit) {
                Ok(socket) => drop(spawn_local(server::serve_socket(self.clone(), socket, door))),
                Err(error) => tracing::debug!(%error, "a fresh socket is of no use"),
            },
            Command::Adopt(permit, adopted) => {
                let Adopted { stream, early, identity, protocol } = *adopted;
                match Socket::new(stream, permit) {
                    Ok(socket) => self.open(socket, identity, protocol, &early),
                    Err(error) => tracing::debug!(%error, "an adopted socket is of no use"),
                }
            }
        }
    }

    fn register(&self, identity: Identity) -> Rc<Connection> {
        let since = self.hub.ring.position();
        let connection = self
            .connections
            .insert(self.index, |id| Connection::new(id, identity, since, self.new_life(id)));
        self.admit(&connection);
        connection
    }

    /// Counts a connection that is identified, and puts it into the user map.
    pub(crate) fn admit(&self, connection: &Rc<Connection>) {
        self.hub.connections.fetch_add(1, Ordering::SeqCst);
        let is_chat = connection.encoding == Encoding::Raw;
        self.hub.chatting.fetch_add(usize::from(is_chat), Ordering::SeqCst);
        let Some(Identity { user, name, .. }) = connection.identity() else { return };
        let duty = self.hub.registry.connect(user, name, connection.id);
        self.hub.note_user(user);
        let settle = || self.unsettled.borrow_mut().settle(&self.hub, user);
        // With a broker a user's first connection is told of by all nodes, or alone once they have said.
        let was_announced = duty == Duty::Settle && (settle() || self.hub.broker.is_some());
        if is_chat && self.hub.crowd.announces() && !was_announced {
            let count = self.hub.present_users();
            self.reply(connection, &chat::joined(user, name, count));
        }
    }

    pub(crate) fn new_life(&self, id: ConnectionId) -> Life {
        let ping_due = Cell::new(self.clock.now() + self.first_ping_after(id.slot));
        Life { ping_due, ..Life::default() }
    }

    fn finish(
        &self,
        connection: &Rc<Connection>,
        reason: &CloseReason,
        counted_as: u16,
        drop_waiting: bool,
    ) {
        if !self.forget(connection, counted_as) {
            return;
        }
        let close = match connection.encoding {
            Encoding::Raw | Encoding::Centrifuge => frame::close(reason),
            Encoding::Sse => sse::disconnect(reason).into(),
        };
        let frame = Burst::lone(close, self.clock.now(), &self.budget);
        let dropped = connection.outbox.borrow_mut().close(&frame, drop_waiting);
        self.stats().dropped(dropped);
        connection.wake_reader();
        let deadline = self.clock.now() + millis(self.hub.config.limits.close_timeout);
        self.closing.borrow_mut().push_back((deadline, Rc::downgrade(connection)));
    }

    /// Removes a connection from everything that counts; false if it was removed before.
    fn forget(&self, connection: &Connection, code: u16) -> bool {
        if !self.connections.remove(connection.id) {
            return false;
        }
        // Its reader lets go of them as soon as it runs.
        self.budget.subtract(connection.life.partial_bytes.take());
        self.stats().closed(code);
        self.leave_all(connection);
        if connection.is_identified() {
            self.hub.connections.fetch_sub(1, Ordering::SeqCst);
            let is_chat = connection.encoding == Encoding::Raw;
            self.hub.chatting.fetch_sub(usize::from(is_chat), Ordering::SeqCst);
        }
        let Some(Identity { user, .. }) = connection.identity() else { return true };
        let duty = self.hub.registry.disconnect(user, connection.id);
        self.hub.note_user(user);
        if duty == Duty::Settle {
            self.unsettled.borrow_mut().settle(&self.hub, user);
        }
        tracing::debug!(%user, code, "connection closed");
        true
    }

    /// Half to all of an interval, by slot, so that those who came together are not pinged so.
    fn first_ping_after(&self, slot: u32) -> Millis {
        let interval = millis(self.hub.config.heartbeat.interval);
        interval / 2 + interval / 2 * Millis::from(slot % PING_PHASES) / Millis::from(PING_PHASES)
    }
}

/// Forgets the connections whose peer is gone, a few at a time.
async fn lose_the_gone(shard: Rc<Shard>) {
    loop {
        shard.has_gone.notified().await;
        while !shard.gone.borrow().is_empty() {
            for _ in 0..LOST_PER_TURN {
                let Some(gone) = shard.gone.borrow_mut().pop_front() else { break };
                shard.lose(&gone, ABNORMAL);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Connections forgotten in one turn: a fraction of a millisecond's work with their sockets.
const LOST_PER_TURN: usize = 16;

/// Stands in the metrics for a peer that went without a Close (RFC 6455 section 7.1.5).
const ABNORMAL: u16 = 1006;

/// Bytes that one evicted for want of memory may still hold: its Close, and little else.
const LAST_WORDS_MAX: usize = 512;

/// Parts of an interval over which first Pings are spread; prime to powers of two, as slots of
/// one burst of arrivals are consecutive.
const PING_PHASES: u32 = 251;

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::{Config, Hub};

    /// The test runs itself again, as what it is about ends its process.
    #[test]
    fn a_vital_task_that_panics_aborts_the_process() {
        if std::env::var_os(DIES).is_some() {
            let hub = Hub::start(Config::default()).unwrap();
            let runtime = Builder::new_current_thread().build_local(Default::default()).unwrap();
            runtime.block_on(async {
                let shard = Rc::new(Shard::new(hub.inner.clone(), 0));
                spawn_vital(&shard, async { panic!("a vital task panics") });
                tokio::task::yield_now().await;
            });
            return;
        }
        let name = "shard::tests::a_vital_task_that_panics_aborts_the_process";
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", name]).env(DIES, "").stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(again.status().unwrap().signal(), Some(SIGABRT));
    }

    const DIES: &str = "A_VITAL_TASK_DIES";
    const SIGABRT: i32 = 6;
}
