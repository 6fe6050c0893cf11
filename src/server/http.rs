//! One socket's HTTP life: requests until it closes, idles too long, or becomes a connection.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::listeners::Door;
use super::pace::Pace;
use super::respond::Body;
use super::route::route;
use super::upgrade::Upgrade;
use super::wire::{Watched, Wire};
use crate::close::CloseReason;
use crate::frame;
use crate::protocol::chat::Chat;
use crate::shard::Shard;
use crate::socket::Socket;

/// Serves HTTP on a fresh socket; a connection that comes of it goes on in tasks of its own, so
/// that nothing of this one stays.
pub(crate) async fn serve_socket(shard: Rc<Shard>, socket: Socket, door: Door) {
    let limits = &shard.hub.config.limits;
    let pace = Rc::new(Pace::new(limits));
    let upgrade = Rc::new(RefCell::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let (shard, pace, upgrade) = (shard.clone(), pace.clone(), upgrade.clone());
        Box::pin(async move {
            let response = route(&shard, door, request, &pace, &upgrade).await;
            pace.rest();
            Ok::<Response<Body>, Infallible>(response)
        })
    });
    let wire = Rc::new(Wire::new(socket, pace.clone()));
    let mut connection = http1::Builder::new()
        .max_buf_size(limits.header_bytes)
        // A peer that ends its side behind a request still reads the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Watched::new(wire.clone())), service);

    let mut draining = pin!(shard.hub.draining());
    let mut overdue = pin!(pace.overdue());
    let mut is_draining = false;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = poll_fn(|context| {
                let outcome = connection.poll_without_shutdown(context);
                if let Some(Upgrade::Sse(_, head)) = &*upgrade.borrow() {
                    // HTTP would end an answer by its length or by chunks, and so waits in vain.
                    wire.push(head);
                    return Poll::Ready(Ok(()));
                }
                if outcome.is_pending() {
                    // An error shows again at the next read.
                    let _ = wire.poll_send(context);
                }
                outcome
            }) => break Some(outcome),
            () = &mut draining, if !is_draining => {
                is_draining = true;
                // Half a request would else hold the drain up to its end.
                pace.hurry(limits.close_timeout / 4);
            }
            () = &mut overdue => break None,
        }
        // The hub drains: the answer that is being made is the last.
        Pin::new(&mut connection).graceful_shutdown();
    };
    let Parts { read_buf, .. } = connection.into_parts();
    // A peer that does not take its answers in this time has gone.
    let sent = poll_fn(|context| wire.poll_send(context));
    let sent = tokio::time::timeout(limits.close_timeout, sent).await;
    if !matches!(sent, Ok(Ok(()))) {
        return;
    }
    let Some(socket) = Rc::into_inner(wire).map(Wire::into_socket) else { return };
    match (outcome, upgrade.take()) {
        (Some(Ok(())), Some(upgrade)) => go_on(&shard, socket, upgrade, &read_buf),
        (outcome, _) => dismiss(&shard, &socket, outcome, &pace).await,
    }
}

/// Goes on with a socket as what its request made of it.
fn go_on(shard: &Rc<Shard>, socket: Socket, upgrade: Upgrade, early: &[u8]) {
    match upgrade {
        Upgrade::Chat(identity, _hold) => {
            let chat = Box::new(Chat::new(&identity));
            shard.open(socket, identity, chat, early);
        }
        Upgrade::Client(has_frame_pings) => shard.open_client(socket, has_frame_pings, early),
        Upgrade::Sse(stream, _) => stream.start(socket),
        Upgrade::Refuse(reason) => {
            let patience = shard.hub.config.limits.close_timeout;
            tokio::task::spawn_local(refuse(socket, reason, patience));
        }
    }
}

/// Ends a socket that became nothing else; without an outcome its peer took too long.
async fn dismiss(shard: &Shard, socket: &Socket, outcome: Option<hyper::Result<()>>, pace: &Pace) {
    match outcome {
        Some(Err(error)) if error.is_parse() => shard.hub.stats.fail_handshake("malformed"),
        None if pace.is_mid_request() => {
            shard.hub.stats.fail_handshake("timeout");
            // A peer that does not take so little has gone.
            let _ = socket.stream.try_write(REQUEST_TIMEOUT);
        }
        _ => {}
    }
    linger(socket, shard.hub.config.limits.close_timeout).await;
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
