//! A socket while it speaks HTTP.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::Pace;
use crate::socket::Socket;

/// A socket whose answers wait until no more requests are there to be answered, so that those to
/// pipelined ones leave in one send.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    pace: Rc<Pace>,
    answers: RefCell<BytesMut>,
}

impl Wire {
    pub(super) fn new(socket: Socket, pace: Rc<Pace>) -> Self {
        Self { socket, pace, answers: RefCell::default() }
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Adds to the answers that wait.
    pub(super) fn push(&self, bytes: &[u8]) {
        self.answers.borrow_mut().extend_from_slice(bytes);
    }

    /// Sends the answers that wait; resolves when all are out.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
pub(super) struct Watched(Rc<Wire>);

impl Watched {
    pub(super) fn new(wire: Rc<Wire>) -> Self {
        Self(wire)
    }
}

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

/// Bytes of answers that wait for the requests behind theirs.
const ANSWERS_MAX: usize = 16 << 10;
