//! Peers of Server-Sent Events: connections that only listen.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Instant, SystemTime};

use tokio::task::spawn_local;

use crate::channel::State;
use crate::channel::history::{Page, Position, Unrecoverable};
use crate::channel::publication::Publication;
use crate::close::CloseReason;
use crate::config::{Config, Recovery};
use crate::connection::Connection;
use crate::message::Encoding;
use crate::outbox::Burst;
use crate::protocol::sse;
use crate::shard::Shard;
use crate::socket::Socket;
use crate::subscription::cursor::Cursor;
use crate::subscription::{Entered, RECOVERED_MAX, Recover, SubscribeError, Terms, Who};
use crate::user::Identity;
use crate::writer::Writer;

/// A channel that a stream is to bring, and where its peer was on it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) channel: String,
    pub(crate) terms: Terms,
    pub(crate) from: Option<Position>,
}

/// A connection that brings channels to a peer, in the order in which it named them. Dropped, it is
/// gone.
#[derive(Debug)]
pub(crate) struct Stream {
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    /// What is not yet subscribed, with its number.
    wanted: VecDeque<(usize, Wanted)>,
    /// When its peer had been where it says.
    seen: Option<Instant>,
}

impl Stream {
    /// Opens a stream without a socket, and queues what its peer missed; what there is no room for
    /// follows as the peer takes that. Refused with the channel that refuses it.
    pub(crate) fn open(
        shard: &Rc<Shard>,
        who: Who,
        expires: Option<SystemTime>,
        wanted: Vec<Wanted>,
        seen: Option<Instant>,
    ) -> Result<Self, (String, SubscribeError)> {
        let connection = shard.connections.insert(shard.index, |id| {
            let life = shard.new_life(id);
            life.expires.set(expires);
            Connection::unidentified(id, Encoding::Sse, life)
        });
        if wanted.len() > 1 {
            let cursor = Cursor::new(wanted.iter().map(|wanted| wanted.from.clone()));
            connection.cursor.get_or_init(|| Box::new(cursor));
        }
        let identity = who.user.clone().map(Identity::new);
        connection.introduce(who);
        let wanted = wanted.into_iter().enumerate().collect();
        let mut stream = Self { shard: shard.clone(), connection, wanted, seen };
        if let Err(refusal) = stream.subscribe() {
            // It was never there, so nothing counts or announces its end.
            shard.connections.remove(stream.connection.id);
            shard.leave_all(&stream.connection);
            return Err(refusal);
        }
        stream.connection.identify(identity, shard.hub.ring.position());
        shard.admit(&stream.connection);
        Ok(stream)
    }

    /// Goes on with the socket to the peer, in two tasks.
    pub(crate) fn start(mut self, socket: Socket) {
        let Config { heartbeat, limits, .. } = &self.shard.hub.config;
        // Not before the sweep would close a slow consumer, which is told.
        let silence = heartbeat.interval + heartbeat.timeout;
        socket.give_up_after(silence.max(limits.outbox_age + limits.close_timeout));
        let socket = Rc::new(socket);
        let (shard, connection) = (self.shard.clone(), self.connection.clone());
        spawn_local(Writer { shard, connection, socket: socket.clone() }.run());
        spawn_local(async move { self.run(&socket).await });
    }

    /// Lasts until the peer is gone. It has nothing more to say: what it sends is discarded.
    async fn run(&mut self, socket: &Socket) {
        if !self.wanted.is_empty() {
            // Boxed, as every stream's task would else hold room for this rare wait.
            Box::pin(self.subscribe_rest()).await;
        }
        while self.readable(socket).await {
            let read = socket.stream.try_read(&mut self.shard.scratch.borrow_mut());
            match read {
                Ok(0) => return,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => {}
                Err(_) => return,
            }
        }
    }

    /// Resolves when there is something to read; false if the socket is to be let go.
    async fn readable(&self, socket: &Socket) -> bool {
        poll_fn(|context| {
            self.connection.register_reader(context);
            if self.connection.is_cut() {
                return Poll::Ready(false);
            }
            Poll::Ready(ready!(socket.stream.poll_read_ready(context)).is_ok())
        })
        .await
    }

    /// Subscribes what had no room, as the peer takes what waits for it.
    async fn subscribe_rest(&mut self) {
        let connection = self.connection.clone();
        connection.life.is_paused.set(true);
        while !self.wanted.is_empty() {
            tokio::select! {
                biased;
                () = connection.closed() => break,
                () = connection.outbox_below(self.shard.hub.config.limits.reply_bytes()) => {}
            }
            if self.subscribe().is_err() {
                // The answer has begun; its peer is told which when it comes back.
                self.shard.close(&connection, &CloseReason::INSUFFICIENT_STATE);
            }
        }
        connection.life.is_paused.set(false);
    }

    /// Brings one channel after the other while there is room for what its peer missed, and says where
    /// the stream then stands.
    fn subscribe(&mut self) -> Result<(), (String, SubscribeError)> {
        let mut lone = None;
        while self.connection.outbox.borrow().held() <= self.shard.hub.config.limits.reply_bytes() {
            let Some((index, mut wanted)) = self.wanted.pop_front() else {
                self.wanted = VecDeque::new();
                break;
            };
            if let Some(missed) = self.part_of_missed(&wanted) {
                self.bring(index, &missed);
                wanted.from = missed.last().map(|publication| publication.position());
                lone.clone_from(&wanted.from);
                self.wanted.push_front((index, wanted));
            } else {
                let channel = wanted.channel.clone();
                lone = self.enter(index, wanted).map_err(|error| (channel, error))?;
            }
        }
        let line = self.id_line(lone.as_ref());
        if !line.is_empty() {
            // Without data it is no event, and still the peer's position from then on.
            self.queue([line + "\n"]);
        }
        Ok(())
    }

    /// The oldest that a peer missed of a channel, if all of it is more than a subscription brings.
    /// Read ahead of that, it makes what is left for it less.
    fn part_of_missed(&self, wanted: &Wanted) -> Option<Vec<Arc<Publication>>> {
        let Wanted { channel, from, .. } = wanted;
        let (hub, from) = (&self.shard.hub, from.as_ref()?);
        if hub.config.namespace(channel)?.recovery != Recovery::Stream {
            return None;
        }
        let max_bytes = self.shard.hub.config.limits.reply_bytes();
        let since = Some(from.clone());
        let page = Page { limit: RECOVERED_MAX, max_bytes, since, reverse: false };
        let read = |state: &State| (state.history.page(&page), state.history.position().offset);
        let (missed, top) = hub.channels.with(channel, |_, state| read(state))?;
        let missed = missed.ok()?;
        let is_next = missed.first().is_some_and(|first| first.offset == from.offset + 1);
        let is_all = missed.last().is_none_or(|last| last.offset == top);
        (is_next && !is_all).then_some(missed)
    }

    /// Subscribes a channel, and queues what its peer missed of it; returns where it stands then.
    fn enter(&self, index: usize, wanted: Wanted) -> Result<Option<Position>, SubscribeError> {
        let Self { shard, connection, .. } = self;
        let Wanted { channel, terms, from } = wanted;
        // It was judged by its namespace, which is there to stay.
        let Some(namespace) = shard.hub.config.namespace(&channel) else { return Ok(None) };
        let max_bytes = shard.hub.config.limits.reply_bytes();
        let recover = Recover { from: from.clone(), or_refuse: false, seen: self.seen, max_bytes };
        let entered = shard.subscribe(connection, &channel, namespace, terms, &recover)?;
        let position = namespace.window().is_open().then(|| entered.position.clone());
        let missed = missed(from.as_ref(), entered);
        if let Ok(missed) = &missed {
            self.bring(index, missed);
        }
        if let Some(cursor) = connection.cursor.get() {
            cursor.set(index, position.clone());
            let subscriptions = connection.subscriptions.borrow();
            if let Some(subscription) = subscriptions.get(&*channel) {
                cursor.enter(index, subscription.channel.id);
            }
        }
        if missed.is_err() {
            self.queue([self.id_line(position.as_ref()) + &sse::unrecovered(&channel)]);
        }
        Ok(position)
    }

    /// Queues publications of channel number `index`, each with where the stream stands after it.
    fn bring(&self, index: usize, publications: &[Arc<Publication>]) {
        let cursor = self.connection.cursor.get();
        self.queue(publications.iter().map(|publication| {
            let event = publication.event();
            let Some(cursor) = cursor else { return event.with_id.to_vec() };
            cursor.set(index, Some(publication.position()));
            [cursor.id_line().as_bytes(), &event.bare].concat()
        }));
    }

    /// The line that says where the stream stands, which on a lone channel is as given.
    fn id_line(&self, lone: Option<&Position>) -> String {
        let cursor = self.connection.cursor.get();
        cursor.map_or_else(|| sse::id_line([lone]), |cursor| cursor.id_line())
    }

    /// Queues events past the ring, however many: whoever calls has looked for room.
    fn queue(&self, events: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for event in events {
            bytes.extend_from_slice(event.as_ref());
            ends.push(bytes.len() as u32);
        }
        if !bytes.is_empty() {
            let burst = Burst::joined(bytes, ends, self.shard.clock.now(), &self.shard.budget);
            self.shard.queue(&self.connection, &burst, usize::MAX);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let is_closing = self.connection.outbox.borrow().is_closing();
        if !is_closing {
            self.shard.lose_in_turn(&self.connection);
        }
    }
}

/// What a new subscriber lacks. One that was never there lacks nothing, nor does one that is where the
/// stream stands.
fn missed(
    from: Option<&Position>,
    entered: Entered,
) -> Result<Vec<Arc<Publication>>, Unrecoverable> {
    match (entered.recovered, from) {
        (Some(Ok(publications)), _) => Ok(publications),
        (_, Some(from)) if *from != entered.position => Err(Unrecoverable),
        _ => Ok(Vec::new()),
    }
}
