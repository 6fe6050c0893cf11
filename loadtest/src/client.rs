//! A connection that speaks the Centrifuge protocol, and whose frames are read whole.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fastwebsockets::{OpCode, Payload};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::centrifuge::{self, Said};
use crate::failure::Failure;
use crate::frames;
use crate::reader::End;
use crate::scanner::{self, CLOSE, TEXT};
use crate::target::Link;
use crate::writer::Writer;

/// An open WebSocket and what of it is not read.
#[derive(Debug)]
pub(crate) struct Client {
    link: Link,
    input: BytesMut,
}

impl Client {
    pub(crate) fn new(mut link: Link) -> Self {
        let input = BytesMut::from(std::mem::take(&mut link.early));
        Self { link, input }
    }

    /// The same for who does not need whole frames.
    pub(crate) fn into_link(self) -> Link {
        Link { early: self.input.freeze(), ..self.link }
    }

    /// The writing side.
    pub(crate) fn writer(&self) -> Rc<Writer> {
        self.link.writer.clone()
    }

    /// Sends commands as one frame.
    pub(crate) async fn send(&self, commands: &str) -> io::Result<()> {
        let frame = frames::masked(OpCode::Text, Payload::Borrowed(commands.as_bytes()));
        self.link.writer.write_all(&frame).await
    }

    /// Sends commands as one frame, and waits for so many replies; one that refuses something is a
    /// failure.
    pub(crate) async fn ask(&mut self, commands: &str, count: u32) -> Result<Vec<Said>, Failure> {
        self.send(commands).await?;
        match timeout(PATIENCE, self.replies(count)).await {
            Ok(replies) => replies,
            Err(_) => Err(Failure::Run("the server leaves commands unanswered".to_owned())),
        }
    }

    /// The next message, or how the connection ended; answers pings. It may be dropped and called
    /// again.
    pub(crate) async fn next(&mut self) -> Result<Bytes, End> {
        loop {
            while let Some((opcode, payload)) = self.take()? {
                match opcode {
                    CLOSE => {
                        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                        return Err(End::Close(code));
                    }
                    TEXT if *payload != *centrifuge::PING => return Ok(payload),
                    opcode => self.link.writer.answer(opcode, &payload),
                }
            }
            self.input.reserve(READ_MIN);
            if !self.link.read.read_buf(&mut self.input).await.is_ok_and(|length| length > 0) {
                return Err(End::Cut);
            }
        }
    }

    async fn replies(&mut self, count: u32) -> Result<Vec<Said>, Failure> {
        let mut replies = Vec::new();
        while (replies.len() as u32) < count {
            let frame = self.next().await.map_err(|end| end.early("a connection"))?;
            let said = centrifuge::read(&frame)
                .map_err(|error| Failure::Run(format!("a reply cannot be read: {error}")))?;
            replies.extend(said.into_iter().filter(|said| said.push.is_none()));
        }
        match replies.iter().find_map(|reply| reply.error.as_ref()) {
            Some(error) => Err(error.as_failure()),
            None => Ok(replies),
        }
    }

    /// The next whole frame: its opcode and payload.
    fn take(&mut self) -> Result<Option<(u8, Bytes)>, End> {
        let parsed = scanner::parse(&self.input).map_err(|_| End::Nonsense)?;
        let Some((frame, size)) = parsed.filter(|(_, size)| *size <= self.input.len() as u64)
        else {
            return Ok(None);
        };
        let (opcode, header) = (frame.opcode, size - frame.length);
        let mut frame = self.input.split_to(size as usize).freeze();
        frame.advance(header as usize);
        Ok(Some((opcode, frame)))
    }
}

/// How long replies may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that a read has room for.
const READ_MIN: usize = 4096;
