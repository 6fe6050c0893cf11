//! HOT. A connection's bounded queue of bytes for its socket.
//!
//! # Cost
//!
//! Per subscriber and burst, [`Outbox::push`]: one comparison, one non-atomic refcount, one
//! append, and a wake only when the writer sleeps on an empty queue. Per write,
//! [`Outbox::slices`] and [`Outbox::advance`]: no copy, one entry popped per finished piece.
//! Nothing allocates while at most four pieces wait.
//!
//! The outbox knows bytes and frame ends, not sockets, users or policy.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::clock::Millis;
use crate::ring::ENTRY_BYTES;

/// Frames joined for one write; shared by every outbox of a shard.
#[derive(Debug)]
pub(crate) struct Burst {
    bytes: Bytes,
    /// Where each frame ends. Empty for a lone frame, which ends where the bytes do.
    ends: Vec<u32>,
    at: Millis,
    kind: Kind,
    budget: Rc<Budget>,
}

/// What the bytes of a burst are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The begin of a frame, whose rest is the next piece.
    Begin,
    Frames,
    Ping,
}

impl Burst {
    /// A burst of several frames that end where `ends` says; the last end is the length.
    pub(crate) fn joined(
        bytes: Vec<u8>,
        ends: Vec<u32>,
        at: Millis,
        budget: &Rc<Budget>,
    ) -> Rc<Self> {
        debug_assert_eq!(ends.last().map(|end| *end as usize), Some(bytes.len()));
        Self::new(bytes.into(), ends, at, Kind::Frames, budget)
    }

    /// A burst of one frame, which is not copied.
    pub(crate) fn lone(frame: Bytes, at: Millis, budget: &Rc<Budget>) -> Rc<Self> {
        Self::new(frame, Vec::new(), at, Kind::Frames, budget)
    }

    /// The begin of a frame whose rest is shared, for [`Outbox::push_begun`].
    pub(crate) fn begin(bytes: Bytes, at: Millis, budget: &Rc<Budget>) -> Rc<Self> {
        Self::new(bytes, Vec::new(), at, Kind::Begin, budget)
    }

    /// A lone Ping frame, whose way into the kernel [`Outbox::advance`] reports.
    pub(crate) fn ping(frame: Bytes, at: Millis, budget: &Rc<Budget>) -> Rc<Self> {
        Self::new(frame, Vec::new(), at, Kind::Ping, budget)
    }

    /// Bytes of all frames.
    pub(crate) fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Frames from byte `start`, itself a frame's begin.
    pub(crate) fn frames_from(&self, start: u32) -> usize {
        match self.ends.len() {
            0 => usize::from(start < self.len() && self.kind != Kind::Begin),
            frames => frames - self.ends.partition_point(|end| *end <= start),
        }
    }

    /// The begin of frame number `index`, or the end for the number after the last.
    pub(crate) fn frame_start(&self, index: usize) -> u32 {
        if index == 0 { 0 } else { self.ends.get(index - 1).copied().unwrap_or(self.len()) }
    }

    fn new(bytes: Bytes, ends: Vec<u32>, at: Millis, kind: Kind, budget: &Rc<Budget>) -> Rc<Self> {
        budget.add(bytes.len());
        Rc::new(Self { bytes, ends, at, kind, budget: budget.clone() })
    }

    /// The end of the frame that `position` lies in, or `position` itself if it is one.
    fn frame_end(&self, position: u32) -> u32 {
        if position == 0 {
            return 0;
        }
        let index = self.ends.partition_point(|end| *end < position);
        self.ends.get(index).copied().unwrap_or(self.len())
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.budget.subtract(self.bytes.len());
    }
}

/// What a shard's bursts, pieces and partial messages hold. A burst counts once, however many
/// share it; each piece of it counts [`ENTRY_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    /// Bytes held now.
    pub(crate) fn used(&self) -> usize {
        self.0.get()
    }

    /// Counts bytes that are held from now on.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    /// Counts bytes that are let go.
    pub(crate) fn subtract(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// The outbox is closing; the frames are not taken.
    Closing,
    /// The bound would be passed; the frames are not taken: a slow consumer.
    Full,
    /// The frames wait for the writer.
    Queued,
}

/// What waits for one socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// Pieces at the front that a control frame must stay behind: the rest of a frame in flight,
    /// and earlier control frames.
    ahead: usize,
    /// Bytes that wait, and [`ENTRY_BYTES`] for each piece.
    held: usize,
    is_closing: bool,
    /// Whether the front is the rest of a frame whose begin is out.
    is_begun: bool,
    /// Whether the writer sleeps until there is something to write.
    is_awaited: bool,
    writer: Option<Waker>,
}

/// Part of a burst.
#[derive(Debug)]
struct Piece {
    burst: Rc<Burst>,
    start: u32,
    end: u32,
}

impl Piece {
    fn new(burst: Rc<Burst>, start: u32, end: u32) -> Self {
        burst.budget.add(ENTRY_BYTES);
        Self { burst, start, end }
    }

    fn whole(burst: &Rc<Burst>) -> Self {
        Self::new(burst.clone(), 0, burst.len())
    }

    fn bytes(&self) -> &[u8] {
        &self.burst.bytes[self.start as usize..self.end as usize]
    }

    fn cost(&self) -> usize {
        (self.end - self.start) as usize + ENTRY_BYTES
    }

    fn frames(&self) -> usize {
        self.burst.frames_from(self.start) - self.burst.frames_from(self.end)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.burst.budget.subtract(ENTRY_BYTES);
    }
}

impl Outbox {
    /// Queues a burst from byte `start`, a frame's begin, to byte `end`, a frame's end. An empty
    /// outbox takes any burst, so that the bound never makes a single burst undeliverable.
    pub(crate) fn push(
        &mut self,
        burst: &Rc<Burst>,
        start: u32,
        end: u32,
        max_bytes: usize,
    ) -> Push {
        if self.is_closing {
            return Push::Closing;
        }
        let held = self.held + (end - start) as usize + ENTRY_BYTES;
        if held > max_bytes && !self.pieces.is_empty() {
            return Push::Full;
        }
        self.held = held;
        self.pieces.push_back(Piece::new(burst.clone(), start, end));
        self.wake_idle_writer();
        Push::Queued
    }

    /// Queues a lone frame in two parts that are never told apart: a begin of this outbox's own, and
    /// the rest.
    pub(crate) fn push_begun(
        &mut self,
        begin: &Rc<Burst>,
        rest: &Rc<Burst>,
        max_bytes: usize,
    ) -> Push {
        let held = self.held + (begin.len() + rest.len()) as usize + 2 * ENTRY_BYTES;
        if held > max_bytes && !self.pieces.is_empty() && !self.is_closing {
            return Push::Full;
        }
        match self.push(begin, 0, begin.len(), usize::MAX) {
            Push::Queued => self.push(rest, 0, rest.len(), usize::MAX),
            closing => closing,
        }
    }

    /// Queues a control frame ahead of the bursts that wait, at the next frame end. When as many
    /// as [`CONTROL_MAX`] wait it takes the place of the last one: RFC 6455 section 5.5.3 lets the
    /// latest Pong stand for those before it. A closing outbox drops it.
    pub(crate) fn push_control(&mut self, burst: &Rc<Burst>) {
        if self.is_closing {
            return;
        }
        self.split_frame_in_flight();
        if self.ahead >= CONTROL_MAX {
            self.ahead -= 1;
            // Only the front can be in flight, so this one has not begun.
            self.held -= self.pieces.remove(self.ahead).map_or(0, |piece| piece.cost());
        }
        let piece = Piece::whole(burst);
        self.held += piece.cost();
        self.pieces.insert(self.ahead, piece);
        self.ahead += 1;
        self.wake_idle_writer();
    }

    /// Queues the Close frame; nothing is taken after it. With `drop_waiting` only the frame in
    /// flight is finished, and the number of frames dropped is returned.
    pub(crate) fn close(&mut self, burst: &Rc<Burst>, drop_waiting: bool) -> usize {
        let mut dropped = 0;
        if drop_waiting {
            self.split_frame_in_flight();
            let mut waiting = std::mem::take(&mut self.pieces);
            let mut is_begun = self.is_begun;
            while let Some(piece) = waiting.pop_front_if(|piece| is_begun || !starts_a_frame(piece))
            {
                is_begun = piece.burst.kind == Kind::Begin;
                // A copy of the rest lets go of the burst, which may be large.
                self.pieces.push_back(detach(&piece));
            }
            dropped = waiting.iter().map(Piece::frames).sum();
        }
        self.pieces.push_back(Piece::whole(burst));
        self.held = self.pieces.iter().map(Piece::cost).sum();
        self.ahead = 0;
        self.is_closing = true;
        self.wake();
        dropped
    }

    /// Drops everything at once, for a socket that is gone; returns the frames dropped.
    pub(crate) fn abandon(&mut self) -> usize {
        let dropped = std::mem::take(&mut self.pieces).iter().map(Piece::frames).sum();
        (self.held, self.ahead) = (0, 0);
        self.is_closing = true;
        self.wake();
        dropped
    }

    /// Bytes held, each piece counting [`ENTRY_BYTES`] more.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether the Close frame was queued.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// When the oldest bytes were queued.
    pub(crate) fn oldest(&self) -> Option<Millis> {
        let front = self.pieces.front()?.burst.at;
        let waiting = self.pieces.get(self.ahead).map_or(front, |piece| piece.burst.at);
        Some(front.min(waiting))
    }

    /// Resolves when there is something to write, or nothing will ever be again.
    pub(crate) fn poll_filled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.is_awaited = self.pieces.is_empty() && !self.is_closing;
        if !self.is_awaited {
            return Poll::Ready(());
        }
        self.register(context);
        Poll::Pending
    }

    /// Has a close wake this task, while it waits for something else.
    pub(crate) fn register(&mut self, context: &mut Context<'_>) {
        match &mut self.writer {
            Some(writer) => writer.clone_from(context.waker()),
            None => self.writer = Some(context.waker().clone()),
        }
    }

    /// The bytes that wait, in order, as many pieces as `slices` holds.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.pieces);
        filled.map(|(slice, piece)| *slice = IoSlice::new(piece.bytes())).count()
    }

    /// The first bytes that wait.
    pub(crate) fn front(&self) -> &[u8] {
        self.pieces.front().map_or(&[], Piece::bytes)
    }

    /// How many pieces wait.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Lets go of what the kernel took; says whether a whole Ping was among it.
    pub(crate) fn advance(&mut self, mut written: usize) -> bool {
        let mut pinged = false;
        self.held -= written;
        while let Some(piece) = self.pieces.front_mut() {
            let length = (piece.end - piece.start) as usize;
            if written < length {
                piece.start += written as u32;
                break;
            }
            written -= length;
            pinged |= piece.burst.kind == Kind::Ping;
            self.is_begun = piece.burst.kind == Kind::Begin;
            self.held -= ENTRY_BYTES;
            self.ahead = self.ahead.saturating_sub(1);
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.pieces.capacity() > IDLE_CAPACITY_MAX {
            self.pieces = VecDeque::new();
        }
        pinged
    }

    /// Makes the rest of a frame that is partly written a piece of its own, ahead of all else.
    fn split_frame_in_flight(&mut self) {
        if self.ahead > 0 {
            return;
        }
        let Some(piece) = self.pieces.front_mut() else { return };
        if self.is_begun {
            self.ahead = 1;
            return;
        }
        let frame_end = piece.burst.frame_end(piece.start);
        if frame_end == piece.start {
            return;
        }
        self.ahead = if piece.burst.kind == Kind::Begin { 2 } else { 1 };
        if frame_end < piece.end {
            let rest = Piece::new(piece.burst.clone(), piece.start, frame_end);
            piece.start = frame_end;
            self.pieces.push_front(rest);
            self.held += ENTRY_BYTES;
        }
    }

    fn wake_idle_writer(&mut self) {
        if self.is_awaited {
            self.wake();
        }
    }

    fn wake(&mut self) {
        self.is_awaited = false;
        if let Some(writer) = &self.writer {
            writer.wake_by_ref();
        }
    }
}

fn starts_a_frame(piece: &Piece) -> bool {
    piece.burst.frame_end(piece.start) == piece.start
}

fn detach(piece: &Piece) -> Piece {
    let Burst { at, budget, .. } = &*piece.burst;
    let burst = Burst::lone(Bytes::copy_from_slice(piece.bytes()), *at, budget);
    Piece::whole(&burst)
}

/// Control frames that may wait in one outbox: some for each kind, and no flood of Pongs for a
/// peer that sends Pings and does not read.
pub(crate) const CONTROL_MAX: usize = 64;

/// Pieces for which an empty outbox keeps its memory: a burst or two, as an idle connection is
/// counted on to cost little.
const IDLE_CAPACITY_MAX: usize = 4;

#[cfg(test)]
mod tests;
