//! One socket's HTTP life: requests until it closes, idles too long, or becomes a WebSocket.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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
    let watched = Watched { socket, pace: pace.clone() };
    let mut connection = http1::Builder::new()
        .max_buf_size(limits.header_bytes)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(watched), service);

    let mut draining = pin!(shard.hub.draining());
    let mut overdue = pin!(pace.overdue());
    let mut is_draining = false;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = poll_fn(|context| connection.poll_without_shutdown(context)) => {
                break Some(outcome);
            }
            () = &mut draining, if !is_draining => {
                is_draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = &mut overdue => break None,
        }
    };
    let Parts { io, read_buf, .. } = connection.into_parts();
    let socket = io.into_inner().socket;
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

    /// Resolves when the peer has taken too long.
    async fn overdue(&self) {
        loop {
            let now = Instant::now();
            match self.deadline.get() {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => tokio::time::sleep(self.handshake_timeout).await,
            }
        }
    }
}

/// A socket that tells its pace when something comes in.
#[derive(Debug)]
struct Watched {
    socket: Socket,
    pace: Rc<Pace>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pace.read();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.half_close();
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
