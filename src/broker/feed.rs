//! What a session hears, in order, until it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::engine::Failure;
use super::topic::Topic;
use crate::ring::ENTRY_BYTES;

/// What came by a topic.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) topic: Topic,
    pub(super) payload: Bytes,
}

/// The end at which it comes out.
#[derive(Debug)]
pub(super) struct Feed {
    receiver: mpsc::UnboundedReceiver<Result<Heard, String>>,
    held: Arc<Buffered>,
}

/// The end at which it comes in, on whichever task that happens.
#[derive(Debug)]
pub(super) struct Inlet {
    sender: mpsc::UnboundedSender<Result<Heard, String>>,
    held: Arc<Buffered>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Buffered {
    bytes: AtomicUsize,
    has_overflowed: AtomicBool,
}

impl Feed {
    /// A feed that holds at most so many bytes; over it the session ends, and what is lacking is read.
    pub(super) fn new(max_bytes: usize) -> (Inlet, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let held = Arc::<Buffered>::default();
        let inlet = Inlet { sender, held: held.clone(), max_bytes };
        (inlet, Self { receiver, held })
    }

    /// What comes next; its bytes count as held until it is [done](Self::done).
    pub(super) async fn next(&mut self) -> Result<Heard, Failure> {
        let ended = || Err("the connection that hears ended".to_owned());
        self.receiver.recv().await.unwrap_or_else(ended).map_err(Failure::new)
    }

    pub(super) fn done(&self, payload: &Bytes) {
        self.held.bytes.fetch_sub(payload.len() + ENTRY_BYTES, Ordering::Relaxed);
    }

    /// What tells how it goes, for others than who takes from it.
    pub(super) fn level(&self) -> Level {
        Level(self.held.clone())
    }
}

/// How much a feed holds.
pub(super) struct Level(Arc<Buffered>);

impl Level {
    /// Whether anything waits that came before.
    pub(super) fn is_held_up(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) > 0
    }
}

impl Inlet {
    /// Takes what came; over the bound nothing more is taken.
    pub(super) fn hear(&self, topic: Topic, payload: Bytes) {
        let bytes = payload.len() + ENTRY_BYTES;
        let Buffered { bytes: held, has_overflowed } = &*self.held;
        if has_overflowed.load(Ordering::Relaxed) {
            return;
        }
        if held.fetch_add(bytes, Ordering::Relaxed) + bytes > self.max_bytes {
            has_overflowed.store(true, Ordering::Relaxed);
            return self.end("more came than limits.broker_bytes".to_owned());
        }
        // A feed that is gone has no more use for it.
        let _ = self.sender.send(Ok(Heard { topic, payload }));
    }

    /// Nothing more comes, or must be counted on; the reason is told.
    pub(super) fn end(&self, reason: String) {
        let _ = self.sender.send(Err(reason));
    }
}
