//! A shard as other threads see it: the bounded queue of what arrives, and its counters.

use std::net::TcpStream;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use tokio::sync::Notify;

use crate::metrics::ShardStats;
use crate::protocol::Protocol;
use crate::server::Door;
use crate::socket::Permit;
use crate::user::Identity;

/// What arrives in a shard's inbox.
#[derive(Debug)]
pub(crate) enum Command {
    /// A fresh socket, HTTP yet.
    Accept(TcpStream, Permit, Door),
    /// A socket that an embedder has upgraded.
    Adopt(Permit, Box<Adopted>),
}

/// A shard as other threads see it.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    inbox: ArrayQueue<Command>,
    arrived: Notify,
    pub(crate) sockets: AtomicUsize,
    pub(crate) stats: ShardStats,
}

impl ShardHandle {
    pub(crate) fn new(max_inbox: usize) -> Self {
        Self {
            inbox: ArrayQueue::new(max_inbox),
            arrived: Notify::new(),
            sockets: AtomicUsize::new(0),
            stats: ShardStats::default(),
        }
    }

    /// Leaves a command in the inbox, or gives it back when that is full.
    pub(crate) fn send(&self, command: Command) -> Result<(), Command> {
        self.inbox.push(command)?;
        self.arrived.notify_one();
        Ok(())
    }

    /// The next command; for the shard alone.
    pub(crate) async fn receive(&self) -> Command {
        loop {
            if let Some(command) = self.inbox.pop() {
                return command;
            }
            self.arrived.notified().await;
        }
    }
}

/// An upgraded socket and whose it is.
pub(crate) struct Adopted {
    pub(crate) stream: TcpStream,
    /// What was read past the request.
    pub(crate) early: Bytes,
    pub(crate) identity: Identity,
    pub(crate) protocol: Box<dyn Protocol>,
}

impl std::fmt::Debug for Adopted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adopted").field("identity", &self.identity).finish_non_exhaustive()
    }
}
