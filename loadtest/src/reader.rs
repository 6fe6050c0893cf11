//! The reading side of a connection: every read goes to one shared buffer and is scanned there.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

use crate::centrifuge;
use crate::clock::Clock;
use crate::events::Events;
use crate::failure::Failure;
use crate::scanner::{CLOSE, Frame, Masked, PING, Scanner, TEXT};
use crate::target::{Form, Link};
use crate::writer::Writer;

/// What all readers of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    pub(crate) clock: Clock,
    buffer: Rc<RefCell<Box<[u8]>>>,
}

impl Scratch {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, buffer: Rc::new(RefCell::new(vec![0; READ_MAX].into())) }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// With a Close frame, and its code if it has one.
    Close(Option<u16>),
    /// Without one: the socket was closed or reset.
    Cut,
    /// The server masked a frame.
    Nonsense,
}

impl End {
    /// The failure it is when it comes early, to whom it came.
    pub(crate) fn early(self, whom: &str) -> Failure {
        if matches!(self, Self::Close(Some(INVALID_CHAT_TOKEN | INVALID_TOKEN))) {
            return Failure::Setup(format!(
                "the server refuses the tokens ({self}); \
                 --secret takes the server's auth.hmac_secret"
            ));
        }
        Failure::Run(format!("{whom} ended early: {self}"))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(Some(code)) => write!(f, "close {code}"),
            Self::Close(None) => f.write_str("close without a code"),
            Self::Cut => f.write_str("cut without a close"),
            Self::Nonsense => f.write_str("a masked frame from the server"),
        }
    }
}

/// What finds the frames in the input.
#[derive(Debug)]
enum Scanning {
    Frames(Scanner),
    Events(Events),
}

impl Scanning {
    fn scan(&mut self, input: &[u8], visit: impl FnMut(Frame<'_>)) -> Result<(), Masked> {
        match self {
            Self::Frames(scanner) => scanner.scan(input, visit),
            Self::Events(events) => {
                events.scan(input, visit);
                Ok(())
            }
        }
    }
}

/// One connection's reading side; answers pings.
#[derive(Debug)]
pub(crate) struct Reader {
    read: OwnedReadHalf,
    writer: Rc<Writer>,
    early: Bytes,
    scanner: Scanning,
    scratch: Scratch,
}

impl Reader {
    pub(crate) fn new(link: Link, scratch: &Scratch) -> Self {
        Self {
            read: link.read,
            writer: link.writer,
            early: link.early,
            scanner: match link.form {
                Form::Frames => Scanning::Frames(Scanner::default()),
                Form::Events => Scanning::Events(Events::default()),
            },
            scratch: scratch.clone(),
        }
    }

    /// The writing side of the same connection.
    pub(crate) fn writer(&self) -> Rc<Writer> {
        self.writer.clone()
    }

    /// Reads to the end. `visit` gets each frame, and the time of the read that completed it.
    pub(crate) async fn run(mut self, mut visit: impl FnMut(u64, Frame<'_>)) -> End {
        let early = std::mem::take(&mut self.early);
        let now = self.scratch.clock.now();
        if let Some(end) = scan(&mut self.scanner, &self.writer, &early, now, &mut visit) {
            return end;
        }
        poll_fn(|context| self.poll(context, &mut visit)).await
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        visit: &mut impl FnMut(u64, Frame<'_>),
    ) -> Poll<End> {
        let mut buffer = self.scratch.buffer.borrow_mut();
        loop {
            let mut buffer = ReadBuf::new(&mut buffer);
            let read = ready!(Pin::new(&mut self.read).poll_read(context, &mut buffer));
            let input = buffer.filled();
            if read.is_err() || input.is_empty() {
                return Poll::Ready(End::Cut);
            }
            let now = self.scratch.clock.now();
            if let Some(end) = scan(&mut self.scanner, &self.writer, input, now, visit) {
                return Poll::Ready(end);
            }
        }
    }
}

fn scan(
    scanner: &mut Scanning,
    writer: &Writer,
    input: &[u8],
    now: u64,
    visit: &mut impl FnMut(u64, Frame<'_>),
) -> Option<End> {
    let mut close = None;
    let scanned = scanner.scan(input, |frame| match frame.opcode {
        CLOSE => {
            let code = frame.head.first_chunk().map(|code| u16::from_be_bytes(*code));
            close = Some(End::Close(code));
        }
        PING => writer.answer(PING, frame.head),
        TEXT if frame.head == centrifuge::PING => writer.answer(TEXT, frame.head),
        _ => visit(now, frame),
    });
    close.or(scanned.is_err().then_some(End::Nonsense))
}

/// The codes of a Close for a token that is not valid, over chat and over the Centrifuge protocol.
const INVALID_CHAT_TOKEN: u16 = 1008;
const INVALID_TOKEN: u16 = 3500;

/// Bytes of one read: more than the bursts of a server, so that each is one read.
const READ_MAX: usize = 256 * 1024;
