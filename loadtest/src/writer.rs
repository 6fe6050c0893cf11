//! The writing side of a connection, which publishes, pings and pongs share.

use std::cell::Cell;
use std::io;

use fastwebsockets::{OpCode, Payload};
use tokio::net::tcp::OwnedWriteHalf;

use crate::frames;
use crate::scanner::{PING, TEXT};

/// Never lets one frame into the middle of another.
#[derive(Debug)]
pub(crate) struct Writer {
    half: OwnedWriteHalf,
    is_busy: Cell<bool>,
}

impl Writer {
    pub(crate) fn new(half: OwnedWriteHalf) -> Self {
        Self { half, is_busy: Cell::new(false) }
    }

    /// Writes everything; only one may do so at a time.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        self.is_busy.set(true);
        while !bytes.is_empty() {
            match self.half.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.half.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.is_busy.set(false);
        Ok(())
    }

    /// Sends a small frame at once or not at all: a peer that is sent more, or has no room, is
    /// not waiting for it.
    pub(crate) fn send(&self, frame: &[u8]) {
        if !self.is_busy.get() {
            let _ = self.half.try_write(frame);
        }
    }

    /// Answers a ping, or an empty command, which is how the Centrifuge protocol pings.
    pub(crate) fn answer(&self, opcode: u8, payload: &[u8]) {
        let opcode = match opcode {
            PING => OpCode::Pong,
            TEXT => OpCode::Text,
            _ => return,
        };
        self.send(&frames::masked(opcode, Payload::Borrowed(payload)));
    }
}
