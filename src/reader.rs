//! Socket to decoder to protocol to hub.

mod wait;

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use self::wait::Waiting;
use crate::client::Given;
use crate::clock::Millis;
use crate::close::CloseReason;
use crate::connection::Connection;
use crate::frame::{self, Decoder, Item, Opcode};
use crate::message::Message;
use crate::outbox::Burst;
use crate::protocol::{Protocol, Reaction, Received, chat};
use crate::shard::Shard;
use crate::socket::Socket;

/// The sole user of a socket's read half. At rest it owns no buffer.
pub(crate) struct Reader {
    socket: Rc<Socket>,
    decoder: Decoder,
    dialog: Dialog,
    /// Input that a turn left over.
    rest: Vec<u8>,
    /// Set when the input no longer means anything: after a violation, or the peer's Close.
    is_deaf: bool,
}

/// What a turn came to.
enum Step {
    /// The peer is gone.
    End,
    /// Something lacks what it needs.
    Pause(Box<Waiting>),
    /// All input is used up.
    Wait,
    /// The turn is over, not the input.
    Yield,
}

impl Step {
    fn pause(waiting: Waiting) -> Self {
        Self::Pause(Box::new(waiting))
    }
}

impl Reader {
    pub(crate) fn new(
        shard: Rc<Shard>,
        connection: Rc<Connection>,
        socket: Rc<Socket>,
        speaker: Speaker,
        early: &[u8],
    ) -> Self {
        let message_bytes = shard.hub.config.limits.message_bytes;
        let decoder = Decoder::new(frame::Limits { message_bytes });
        let dialog = Dialog { shard, connection, speaker, faults: Faults::default() };
        Self { socket, decoder, dialog, rest: early.to_vec(), is_deaf: false }
    }

    /// Reads until the peer is gone. What follows a Close, ours or the peer's, is discarded: left
    /// unread, it would have the kernel reset the connection, and the peer not see our Close.
    pub(crate) async fn run(&mut self) {
        loop {
            if self.holds_in_vain() {
                self.let_go();
            }
            let step = if self.rest.is_empty() {
                if !self.readable().await {
                    return;
                }
                self.read()
            } else {
                self.resume()
            };
            self.account();
            match step {
                Step::End => return,
                // Boxed, as every connection's task would else hold room for this rare wait.
                Step::Pause(waiting) => {
                    Box::pin(self.dialog.wait(*waiting)).await;
                    self.account();
                }
                Step::Wait => {}
                Step::Yield => tokio::task::yield_now().await,
            }
        }
    }

    /// Resolves when there is something to read; false if the socket is to be let go.
    async fn readable(&self) -> bool {
        let connection = &self.dialog.connection;
        poll_fn(|context| {
            connection.register_reader(context);
            if connection.is_cut() {
                return Poll::Ready(false);
            }
            if self.holds_in_vain() {
                return Poll::Ready(true);
            }
            Poll::Ready(ready!(self.socket.stream.poll_read_ready(context)).is_ok())
        })
        .await
    }

    fn read(&mut self) -> Step {
        let shard = self.dialog.shard.clone();
        let mut scratch = shard.scratch.borrow_mut();
        match self.socket.stream.try_read(&mut scratch) {
            Ok(0) => Step::End,
            Ok(length) => {
                let (used, step) = self.process(&mut scratch[..length]);
                self.rest = scratch[used..length].to_vec();
                match step {
                    // More may be there already, and one read is a turn.
                    Step::Wait => Step::Yield,
                    step => step,
                }
            }
            Err(error) if is_transient(&error) => Step::Wait,
            Err(_) => Step::End,
        }
    }

    fn resume(&mut self) -> Step {
        let mut input = std::mem::take(&mut self.rest);
        let (used, step) = self.process(&mut input);
        // A buffer is kept only for what is in it.
        if used < input.len() {
            input.drain(..used);
            self.rest = input;
        }
        step
    }

    /// Decodes and handles at most a turn's frames; returns the bytes used.
    fn process(&mut self, input: &mut [u8]) -> (usize, Step) {
        let length = input.len();
        let mut input = input;
        let mut step = Step::Yield;
        for _ in 0..FRAMES_PER_TURN {
            if self.is_deaf {
                return (length, Step::Wait);
            }
            match self.decoder.decode(&mut input) {
                Ok(Some(item)) => {
                    self.is_deaf = matches!(item, Item::Close(_));
                    if let Some(end) = self.dialog.handle(item) {
                        step = end;
                        break;
                    }
                }
                Ok(None) => {
                    step = Step::Wait;
                    break;
                }
                Err(violation) => {
                    self.dialog.close(&violation.close_reason());
                    self.is_deaf = true;
                }
            }
            if !self.decoder.is_mid_message() {
                self.dialog.connection.life.unfinished.set(0);
            }
        }
        (length - input.len(), step)
    }

    /// Tells sweep and budget what is held of an unfinished message, and of a turn's rest.
    fn account(&self) {
        let Dialog { shard, connection, .. } = &self.dialog;
        let life = &connection.life;
        let held = self.decoder.buffered() + self.rest.capacity();
        shard.budget.add(held);
        shard.budget.subtract(life.partial_bytes.replace(held));
        match (self.decoder.is_mid_message(), life.unfinished.get()) {
            (true, 0) => life.unfinished.set(shard.clock.now()),
            (true, _) => {}
            (false, _) => life.unfinished.set(0),
        }
    }

    /// Whether the connection closes while a message is half assembled, which no one waits for.
    fn holds_in_vain(&self) -> bool {
        self.decoder.buffered() > 0 && self.dialog.connection.outbox.borrow().is_closing()
    }

    fn let_go(&mut self) {
        self.rest = Vec::new();
        self.decoder = Decoder::new(frame::Limits { message_bytes: 0 });
        self.is_deaf = true;
        self.account();
    }
}

impl Drop for Reader {
    /// However the reader ends, even by a panic, no dead connection stays.
    fn drop(&mut self) {
        let Dialog { shard, connection, .. } = &self.dialog;
        shard.budget.subtract(connection.life.partial_bytes.take());
        let is_closing = connection.outbox.borrow().is_closing();
        if !is_closing {
            shard.lose_in_turn(connection);
        }
    }
}

/// Who answers for the server.
pub(crate) enum Speaker {
    /// The Centrifuge protocol; others know its peer by that name.
    Client(Arc<str>),
    Raw(Box<dyn Protocol>),
}

/// The connection's side of the talk.
struct Dialog {
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    speaker: Speaker,
    faults: Faults,
}

impl Dialog {
    /// Handles one item; a step ends the turn.
    fn handle(&mut self, item: Item<'_>) -> Option<Step> {
        let is_closing = self.connection.outbox.borrow().is_closing();
        if is_closing {
            return None;
        }
        // Any frame is a sign of life.
        self.connection.life.pinged.set(0);
        match item {
            Item::Text(text) => return self.receive(Received::Text(&text)),
            Item::Binary(payload) => return self.receive(Received::Binary(&payload)),
            Item::Ping(payload) => self.pong(&payload),
            Item::Close(code) => self.shard.answer_close(&self.connection, code),
            Item::Fragment | Item::Pong => {}
        }
        None
    }

    fn receive(&mut self, message: Received<'_>) -> Option<Step> {
        self.shard.stats().received();
        match (&mut self.speaker, message) {
            (Speaker::Raw(protocol), message) => {
                let reaction = protocol.receive(message);
                self.react(reaction)
            }
            (Speaker::Client(_), Received::Text(frame)) => {
                self.command(Given::default(), frame, false).map(Step::pause)
            }
            (Speaker::Client(_), Received::Binary(_)) => {
                self.close(&CloseReason::BAD_REQUEST);
                None
            }
        }
    }

    fn react(&mut self, reaction: Reaction) -> Option<Step> {
        let max = self.shard.hub.config.limits.message_bytes + chat::ENVELOPE_BYTES_MAX;
        match reaction {
            Reaction::Broadcast(message) | Reaction::Reply(message) if message.len() > max => {
                self.close(&CloseReason::MESSAGE_TOO_BIG);
            }
            Reaction::Broadcast(message) => return self.say(message).map(Step::pause),
            Reaction::Close(reason) => self.close(&reason),
            Reaction::Ignore => {}
            Reaction::Refuse(message) => self.refuse(&message),
            Reaction::Reply(message) => self.shard.reply(&self.connection, &message),
        }
        None
    }

    fn refuse(&mut self, message: &Message) {
        self.shard.reply(&self.connection, message);
        self.count_fault();
    }

    fn count_fault(&mut self) {
        if self.faults.is_one_too_many(self.shard.clock.now()) {
            self.close(&CloseReason::TOO_MANY_ERRORS);
        }
    }

    fn pong(&self, payload: &[u8]) {
        let Shard { clock, budget, .. } = &*self.shard;
        let pong = Burst::lone(frame::encode(Opcode::Pong, payload), clock.now(), budget);
        self.connection.outbox.borrow_mut().push_control(&pong);
    }

    fn close(&self, reason: &CloseReason) {
        self.shard.close(&self.connection, reason);
    }
}

/// How many errors a peer made lately.
#[derive(Debug, Default)]
struct Faults {
    since: Millis,
    count: u32,
}

impl Faults {
    fn is_one_too_many(&mut self, now: Millis) -> bool {
        if now.saturating_sub(self.since) > FAULT_WINDOW {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count >= FAULTS_MAX
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Bytes of one read: a turn's, as no socket may keep its shard from the others.
pub(crate) const SCRATCH_BYTES: usize = 64 << 10;

/// Frames of one turn, for the same reason.
const FRAMES_PER_TURN: usize = 256;

/// Errors within [`FAULT_WINDOW`] that close a connection.
const FAULTS_MAX: u32 = 10;

/// Milliseconds over which errors are counted together.
const FAULT_WINDOW: Millis = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenth_fault_within_ten_seconds_is_one_too_many() {
        let mut faults = Faults::default();
        assert!((1..10).all(|i| !faults.is_one_too_many(i * 1_000)));
        assert!(faults.is_one_too_many(9_999));
        let mut slow = Faults::default();
        assert!((1..100).all(|i| !slow.is_one_too_many(i * 1_200)));
    }
}
