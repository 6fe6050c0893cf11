//! Who publishes: a chat connection or a backend over HTTP, by schedule.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use fastwebsockets::{OpCode, Payload};
use tokio::task::yield_now;

use crate::clock::{Clock, Timer};
use crate::feed::Source;
use crate::frames;
use crate::mark::Mark;
use crate::schedule::Schedule;
use crate::writer::Writer;

/// Writes publishes when they are due.
#[derive(Debug)]
pub(crate) struct Publisher {
    writer: Rc<Writer>,
    encoder: Encoder,
    clock: Clock,
    timer: Timer,
    sent: Rc<Sent>,
}

/// What a publisher has done so far.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) count: Cell<u64>,
    /// The most nanoseconds between when a publish was due and when it was to be written.
    pub(crate) late: Cell<u64>,
}

impl Publisher {
    pub(crate) fn new(writer: Rc<Writer>, encoder: Encoder, clock: Clock) -> io::Result<Self> {
        let timer = Timer::new(clock)?;
        Ok(Self { writer, encoder, clock, timer, sent: Rc::default() })
    }

    /// What it has done, kept up to date.
    pub(crate) fn sent(&self) -> Rc<Sent> {
        self.sent.clone()
    }

    /// Publishes what the schedule says. What is late is written as soon as the server takes it;
    /// what it has not taken [`GRACE`] after the schedule's end never is.
    pub(crate) async fn run(&mut self, mut schedule: Schedule) -> io::Result<()> {
        let mut batch = Vec::new();
        let give_up = schedule.end().saturating_add(GRACE);
        loop {
            let now = self.clock.now();
            let mut count = 0;
            while batch.len() < BATCH_MAX
                && now < give_up
                && let Some(due) = schedule.take(now)
            {
                self.encoder.append(due, &mut batch);
                self.sent.late.set(self.sent.late.get().max(now - due));
                count += 1;
            }
            if count > 0 {
                if self.writer.write_all(&batch).await.is_err() {
                    // Whoever reads the connection learns how it ended.
                    return Ok(());
                }
                self.sent.count.set(self.sent.count.get() + count);
                batch.clear();
                // Readers share the thread, and a socket that takes everything never waits.
                yield_now().await;
                continue;
            }
            match schedule.next(now).filter(|_| now < give_up) {
                Some(due) => self.timer.until(due).await?,
                None => return Ok(()),
            }
        }
    }
}

/// Turns numbers and times into publishes on the wire.
#[derive(Debug)]
pub(crate) struct Encoder {
    publisher: u16,
    sequence: u32,
    template: Vec<u8>,
    /// Where in the template the mark goes.
    mark: usize,
    is_framed: bool,
    copy: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(publisher: u16, source: &Source, host: SocketAddr) -> Self {
        match source {
            Source::Chat(size) => {
                Self::framed(publisher, r#"{"type":"message","body":""#, *size, r#""}"#)
            }
            Source::Bare(size) => Self::framed(publisher, "", *size, ""),
            Source::Broadcast(size, key) => {
                Self::request(publisher, host, key, "broadcast_all", "", *size)
            }
            Source::Unicast(size, key, user) => {
                let user = format!(r#""user":{user},"#);
                Self::request(publisher, host, key, "send_to_user", &user, *size)
            }
        }
    }

    fn framed(publisher: u16, before: &str, size: usize, after: &str) -> Self {
        let template = template(before, size, after);
        let mark = before.len();
        Self { publisher, sequence: 0, template, mark, is_framed: true, copy: Vec::new() }
    }

    fn request(
        publisher: u16,
        host: SocketAddr,
        key: &str,
        method: &str,
        member: &str,
        size: usize,
    ) -> Self {
        let before = format!(r#"{{{member}"data":{{"type":"notification","body":""#);
        let after = r#""}}"#;
        let head = format!(
            "POST /api/{method} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n\
             content-length: {}\r\n\r\n{before}",
            before.len() + size + after.len()
        );
        Self { is_framed: false, ..Self::framed(publisher, &head, size, after) }
    }

    /// Appends the next publish.
    fn append(&mut self, due: u64, batch: &mut Vec<u8>) {
        let mark = Mark { publisher: self.publisher, sequence: self.sequence, due };
        self.sequence += 1;
        mark.write(&mut self.template[self.mark..]);
        if self.is_framed {
            self.copy.clone_from(&self.template);
            frames::append(batch, true, OpCode::Text, Payload::BorrowedMut(&mut self.copy));
        } else {
            batch.extend_from_slice(&self.template);
        }
    }
}

fn template(before: &str, size: usize, after: &str) -> Vec<u8> {
    let mut template = before.as_bytes().to_vec();
    template.resize(before.len() + size, b'.');
    template.extend_from_slice(after.as_bytes());
    template
}

/// Bytes written at once when much is due.
const BATCH_MAX: usize = 64 * 1024;

/// How long after its end a schedule may be caught up with, in nanoseconds.
const GRACE: u64 = 500_000_000;
