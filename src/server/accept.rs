//! The accept loop: from the listener to the least loaded shard.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::listeners::{Door, Listeners};
use crate::hub::Inner;
use crate::inbox::Command;
use crate::socket::Permit;

/// Accepts until `shutdown` resolves, then closes the listeners.
pub(super) async fn until(
    shutdown: impl Future<Output = ()>,
    listeners: Listeners,
    hub: &Arc<Inner>,
) -> io::Result<()> {
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let accept = |listener, door| Accept::new(listener, door, hub, refusals.clone());
    let Listeners { public, internal } = listeners;
    let door = if internal.is_some() { Door::Public } else { Door::Only };
    let public = accept(public, door)?;
    let internal = internal.map(|listener| accept(listener, Door::Internal)).transpose()?;
    let internal = async {
        match internal {
            Some(accept) => accept.run().await,
            None => pending().await,
        }
    };
    tokio::select! {
        never = public.run() => match never {},
        never = internal => match never {},
        () = shutdown => Ok(()),
    }
}

/// Connects that may wait in the kernel, which caps them at `net.core.somaxconn`: as many as fit the
/// inboxes. Over the standard library's 128, which is a small storm, each is tried again after a
/// second; with more than fit, a storm would be refused where it can wait.
fn backlog(hub: &Inner) -> i32 {
    let inboxes = hub.config.limits.inbox.saturating_mul(hub.shards.len());
    i32::try_from(inboxes).unwrap_or(i32::MAX)
}

struct Accept<'a> {
    listener: tokio::net::TcpListener,
    door: Door,
    hub: &'a Arc<Inner>,
    refusals: Arc<Semaphore>,
}

impl<'a> Accept<'a> {
    fn new(
        listener: TcpListener,
        door: Door,
        hub: &'a Arc<Inner>,
        refusals: Arc<Semaphore>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        socket2::SockRef::from(&listener).listen(backlog(hub))?;
        Ok(Self { listener: tokio::net::TcpListener::from_std(listener)?, door, hub, refusals })
    }

    async fn run(&self) -> Infallible {
        let mut backoff = BACKOFF_MIN;
        loop {
            // The shard's reactor is another one, so the socket leaves ours at once.
            let accepted = self.listener.accept().await.and_then(|(socket, _)| socket.into_std());
            match accepted {
                Ok(stream) => {
                    backoff = BACKOFF_MIN;
                    self.place(stream);
                }
                Err(error) if is_of_one_peer(&error) => {}
                Err(error) => {
                    // Out of descriptors, most likely: the listener stays readable, and trying
                    // at once would only burn the core that could free some.
                    tracing::warn!(%error, ?backoff, "cannot accept; trying again");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Hands a socket to the least loaded shard whose inbox has room, or answers 503.
    fn place(&self, mut stream: TcpStream) {
        let spare = if self.door == Door::Internal { INTERNAL_SPARE } else { 0 };
        for shard in self.hub.shards_by_load() {
            let Some(permit) = Permit::take(self.hub, shard, spare) else { break };
            match self.hub.shards[shard].send(Command::Accept(stream, permit, self.door)) {
                Ok(()) => return,
                Err(Command::Accept(returned, ..)) => stream = returned,
                Err(Command::Adopt(..)) => return,
            }
        }
        self.hub.stats.fail_handshake("full");
        if let Ok(turn) = self.refusals.clone().try_acquire_owned() {
            tokio::spawn(async move {
                let _turn = turn;
                // The peer may be gone, or slower than it deserves to be waited for.
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
            });
        }
    }
}

/// Whether an accept failed for reasons of the peer that was to be accepted, and of no other.
fn is_of_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied)
}

/// Answers 503 once something was asked, and waits for the peer's end so that it can read that.
async fn refuse(stream: TcpStream) -> io::Result<()> {
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let mut discarded = [0; 4096];
    if stream.read(&mut discarded).await? == 0 {
        return Ok(());
    }
    stream.write_all(UNAVAILABLE).await?;
    socket2::SockRef::from(&stream).shutdown(Shutdown::Write)?;
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 0\r\n\r\n";

/// Sockets that are told 503 at once; beyond them a refused socket is just closed. Fewer than
/// the descriptors that are kept for such things.
const REFUSALS_MAX: usize = 32;

/// Sockets that the internal listener takes over `limits.connections`, so that a server full of
/// peers is still seen to be alive, and can be told things.
const INTERNAL_SPARE: usize = 16;

const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds of the wait after an accept that failed for want of something.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::{Config, Hub};

    #[tokio::test]
    async fn a_storm_of_connects_waits_for_its_turn() {
        let hub = Hub::start(Config::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = pin!(until(pending(), listener.into(), &hub.inner));
        assert!(
            poll_fn(|context| Poll::Ready(accepting.as_mut().poll(context).is_pending())).await
        );
        let within = Duration::from_millis(900);
        for number in 0..500 {
            let connected = TcpStream::connect_timeout(&address, within);
            assert!(connected.is_ok(), "connect {number} had to be tried again");
        }
    }
}
