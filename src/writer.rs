//! HOT. A connection's outbox into its socket.
//!
//! # Cost
//!
//! Per wake: one `send`, or one `writev` when several pieces wait, for all that is there; another
//! only while the kernel took less than that. No copy, no allocation, no timer.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::close::CloseReason;
use crate::connection::Connection;
use crate::shard::Shard;
use crate::socket::Socket;

/// The sole user of a socket's write half.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shard: Rc<Shard>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) socket: Rc<Socket>,
}

impl Writer {
    /// Writes until the Close frame is out, or the socket is lost or cut.
    pub(crate) async fn run(self) {
        poll_fn(|context| self.poll_finished(context)).await;
        if self.connection.is_cut() {
            self.socket.discard_unsent();
        } else {
            self.socket.half_close();
        }
    }

    fn poll_finished(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut written = 0;
        while written < TURN_BYTES {
            ready!(self.connection.outbox.borrow_mut().poll_filled(context));
            if self.connection.outbox.borrow().is_empty() {
                return Poll::Ready(());
            }
            match self.write() {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A close must reach a writer that waits for the socket.
                    self.connection.outbox.borrow_mut().register(context);
                    // An error shows again, and is dealt with, at the next write.
                    let _ = ready!(self.socket.stream.poll_write_ready(context));
                }
                Err(_) => self.shard.lose(&self.connection, CloseReason::WRITE_ERROR.code()),
            }
        }
        // A peer that takes a large outbox at once is given turns like any other.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn write(&self) -> io::Result<usize> {
        let mut outbox = self.connection.outbox.borrow_mut();
        let written = if outbox.pieces() == 1 {
            self.socket.stream.try_write(outbox.front())?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox.slices(&mut slices);
            self.socket.stream.try_write_vectored(&slices[..count])?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.shard.stats().wrote(written);
        if self.connection.life.is_paused.get() {
            // It may wait for room in this outbox.
            self.connection.wake_reader();
        }
        if outbox.advance(written) {
            self.connection.life.pinged.set(self.shard.clock.now());
        }
        Ok(written)
    }
}

impl Drop for Writer {
    /// A connection without a writer would only look alive.
    fn drop(&mut self) {
        let is_closing = self.connection.outbox.borrow().is_closing();
        if !is_closing {
            self.shard.lose(&self.connection, CloseReason::WRITE_ERROR.code());
        }
    }
}

/// Bytes of one turn: more than a socket takes at once as a rule.
const TURN_BYTES: usize = 1 << 20;

/// Pieces of one `writev`; with bursts of 64 KiB more than a socket takes at once.
const SLICES_MAX: usize = 64;
