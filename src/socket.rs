//! A connection's TCP socket, and what the kernel is told about it.

use std::io;
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::hub::Inner;

/// A socket that counts against `limits.connections` for as long as it is open.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    _permit: Permit,
}

impl Socket {
    /// Takes a socket into this thread's reactor.
    pub(crate) fn new(stream: StdTcpStream, permit: Permit) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let socket = SockRef::from(&stream);
        // Bursts are joined before they are sent, so waiting to fill a packet only delays.
        socket.set_tcp_nodelay(true)?;
        // What a stalled peer does not take waits in its outbox, where it is counted and bounded,
        // rather than in the megabytes that the kernel would grow its send buffer to.
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        Ok(Self { stream: TcpStream::from_std(stream)?, _permit: permit })
    }

    /// Tells the peer that nothing more will come; what it sends can still be read.
    pub(crate) fn half_close(&self) {
        // A socket that is already gone needs no goodbye.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
    }

    /// Has the kernel give up a peer that acknowledges or takes nothing for so long, where it can be
    /// told: for a peer that cannot answer a Ping.
    pub(crate) fn give_up_after(&self, patience: Duration) {
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(patience));
        #[cfg(not(target_os = "linux"))]
        let _ = patience;
    }

    /// Has the close of the socket drop what the kernel still holds for a peer that does not read.
    pub(crate) fn discard_unsent(&self) {
        let _ = self.stream.set_zero_linger();
    }
}

/// The right to hold one socket open on one shard; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    hub: Arc<Inner>,
    shard: usize,
}

impl Permit {
    /// A permit, unless as many are out as the limit and `spare` allow.
    pub(crate) fn take(hub: &Arc<Inner>, shard: usize, spare: usize) -> Option<Self> {
        let taken = hub.sockets.fetch_add(1, Ordering::AcqRel);
        hub.shards[shard].sockets.fetch_add(1, Ordering::Relaxed);
        let permit = Self { hub: hub.clone(), shard };
        (taken < hub.max_sockets.saturating_add(spare)).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.hub.shards[self.shard].sockets.fetch_sub(1, Ordering::Relaxed);
        if self.hub.sockets.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.hub.drained.notify_waiters();
        }
    }
}

/// Sockets that the descriptor limit allows, less those that the process needs otherwise.
pub(crate) fn descriptors_to_spare() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    limit.saturating_sub(DESCRIPTORS_KEPT).max(1)
}

/// Bytes that the kernel takes beyond what it could send; two bursts keep a fast peer busy.
const NOTSENT_LOWAT: u32 = 128 << 10;

/// Descriptors kept for listeners, reactors, logs and configuration.
const DESCRIPTORS_KEPT: usize = 64;
