//! One socket's HTTP life: requests until it closes, idles too long, or becomes a WebSocket.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::respond::Body;
use super::route::route;
use super::upgrade::Upgrade;
use crate::close::CloseReason;
use crate::config::Limits;
use crate::frame;
use crate::protocol::chat::Chat;
use crate::shard::Shard;
use crate::socket::Socket;

/// Serves HTTP on a fresh socket; a WebSocket that comes of it goes on in tasks of its own, so
/// that nothing of this one stays.
pub(crate) async fn serve_socket(shard: Rc<Shard>, socket: Socket) {
    let limits = &shard.hub.config.limits;
    let pace = Rc::new(Pace::new(limits));
    let upgrade = Rc::new(RefCell::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let (shard, pace, upgrade) = (shard.clone(), pace.clone(), upgrade.clone());
        Box::pin(async move {
            let response = route(&shard, request, &pace, &upgrade).await;
            pace.rest();
            Ok::<Response<Body>, Infallible>(response)
        })
    });
    let wire = Rc::new(Wire { socket, pace: pace.clone(), answers: RefCell::default() });
    let mut connection = http1::Builder::new()
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(Watched(wire.clone())), service);

    let mut draining = pin!(shard.hub.draining());
    let mut overdue = pin!(pace.overdue());
    let mut is_draining = false;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = poll_fn(|context| {
                let outcome = connection.poll_without_shutdown(context);
                if outcome.is_pending() {
                    // An error shows again at the next read.
                    let _ = wire.poll_send(context);
                }
                outcome
            }) => break Some(outcome),
            () = &mut draining, if !is_draining => {
                is_draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = &mut overdue => break None,
        }
    };
    let Parts { read_buf, .. } = connection.into_parts();
    // A peer that does not take its answers in this time has gone.
    let sent = poll_fn(|context| wire.poll_send(context));
    let _ = tokio::time::timeout(limits.close_timeout, sent).await;
    let Some(Wire { socket, .. }) = Rc::into_inner(wire) else { return };
    match (outcome, upgrade.take()) {
        (Some(Ok(())), Some(Upgrade::Chat(identity))) => {
            let chat = Box::new(Chat::new(&identity));
            shard.open(socket, identity, chat, &read_buf);
        }
        (Some(Ok(())), Some(Upgrade::Refuse(reason))) => {
            tokio::task::spawn_local(refuse(socket, reason, limits.close_timeout));
        }
        (Some(Err(error)), _) if error.is_parse() => {
            shard.hub.stats.fail_handshake("malformed");
            linger(&socket, limits.close_timeout).await;
        }
        (Some(_), _) => linger(&socket, limits.close_timeout).await,
        (None, _) => {
            if pace.is_mid_request() {
                shard.hub.stats.fail_handshake("timeout");
                // A peer that does not take so little has gone.
                let _ = socket.stream.try_write(REQUEST_TIMEOUT);
            }
            linger(&socket, limits.close_timeout).await;
        }
    }
}

/// How long a peer may take, from a request's first byte to its last and between requests.
#[derive(Debug)]
pub(super) struct Pace {
    deadline: Cell<Option<Instant>>,
    is_resting: Cell<bool>,
    handshake_timeout: Duration,
    keepalive_timeout: Duration,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        Self {
            deadline: Cell::new(Some(Instant::now() + limits.handshake_timeout)),
            is_resting: Cell::new(false),
            handshake_timeout: limits.handshake_timeout,
            keepalive_timeout: limits.keepalive_timeout,
        }
    }

    /// The request has come in whole; what takes time now is ours.
    pub(super) fn received(&self) {
        self.deadline.set(None);
    }

    /// Some of a request has come in.
    fn read(&self) {
        if self.is_resting.replace(false) {
            self.deadline.set(Some(Instant::now() + self.handshake_timeout));
        }
    }

    /// The answer is made; the next request may take its time.
    fn rest(&self) {
        self.is_resting.set(true);
        self.deadline.set(Some(Instant::now() + self.keepalive_timeout));
    }

    fn is_mid_request(&self) -> bool {
        !self.is_resting.get()
    }

    /// Resolves when the peer has taken too long. The deadline is looked at anew at every poll,
    /// as what moves it nearer is polled by the same task.
    async fn overdue(&self) {
        let mut timer = pin!(tokio::time::sleep(self.keepalive_timeout));
        poll_fn(|context| {
            let Some(deadline) = self.deadline.get() else { return Poll::Pending };
            if deadline < timer.deadline().into_std() {
                timer.as_mut().reset(deadline.into());
            }
            while timer.as_mut().poll(context).is_ready() {
                if deadline <= Instant::now() {
                    return Poll::Ready(());
                }
                timer.as_mut().reset(deadline.into());
            }
            Poll::Pending
        })
        .await;
    }
}

/// A socket whose answers wait until no more requests are there to be answered, so that those to
/// pipelined ones leave in one send.
#[derive(Debug)]
struct Wire {
    socket: Socket,
    pace: Rc<Pace>,
    answers: RefCell<BytesMut>,
}

impl Wire {
    fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut answers = self.answers.borrow_mut();
        while !answers.is_empty() {
            match self.socket.stream.try_write(&answers) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(sent) => answers.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.stream.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        *answers = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Resolves when there is room for another answer.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.answers.borrow().len() < ANSWERS_MAX {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }
}

/// What HTTP sees of a [`Wire`]; tells the pace when something comes in.
#[derive(Debug)]
struct Watched(Rc<Wire>);

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Wire { socket, pace, .. } = &*self.0;
        // Who does not take its answers is asked for no more questions.
        ready!(self.0.poll_room(context))?;
        loop {
            ready!(socket.stream.poll_read_ready(context))?;
            match socket.stream.try_read_buf(buffer) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {
                    pace.read();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.0.poll_room(context))?;
        self.0.answers.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.socket.half_close();
        Poll::Ready(Ok(()))
    }
}

/// Tells a peer that was never let in why, in WebSocket terms.
async fn refuse(socket: Socket, reason: CloseReason, patience: Duration) {
    // A fresh socket has room for one small frame; one that has not is gone.
    let _ = socket.stream.try_write(&frame::close(&reason));
    linger(&socket, patience).await;
}

/// Half-closes and discards until the peer ends too: the kernel answers input that nobody reads
/// with a reset, which would take our last words with it.
async fn linger(socket: &Socket, patience: Duration) {
    socket.half_close();
    let mut discarded = [0; 1024];
    let ended = async {
        while socket.stream.readable().await.is_ok() {
            match socket.stream.try_read(&mut discarded) {
                Ok(0) => return,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(patience, ended).await;
}

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Bytes of answers that wait for the requests behind theirs.
const ANSWERS_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_begins_late_is_not_given_the_time_between_requests() {
        let handshake_timeout = Duration::from_millis(20);
        let pace = Pace::new(&Limits { handshake_timeout, ..Limits::default() });
        pace.received();
        pace.rest();
        let mut overdue = pin!(pace.overdue());
        assert!(poll_fn(|context| Poll::Ready(overdue.as_mut().poll(context).is_pending())).await);
        pace.read();
        tokio::time::timeout(handshake_timeout * 100, overdue).await.unwrap();
        assert!(pace.is_mid_request());
    }
}
