//! Many subscribers, counted together.

use std::rc::Rc;
use std::time::Duration;

use fastwebsockets::{OpCode, Payload};
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::{sleep, timeout};

use crate::failure::Failure;
use crate::frames;
use crate::reader::{Reader, Scratch};
use crate::scanner::Frame;
use crate::tally::Tally;
use crate::target::{Link, Target};
use crate::writer::Writer;

/// Open connections that read what comes; dropping this drops them.
#[derive(Debug)]
pub(crate) struct Subscribers {
    pub(crate) tally: Rc<Tally>,
    scratch: Scratch,
    /// Of how many deliveries to a connection one is timed.
    stride: u32,
    writers: Vec<Rc<Writer>>,
    readers: Vec<AbortHandle>,
}

impl Subscribers {
    pub(crate) fn new(scratch: &Scratch, stride: u32) -> Self {
        Self {
            tally: Tally::new(),
            scratch: scratch.clone(),
            stride,
            writers: Vec::new(),
            readers: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.writers.len()
    }

    /// Connects users; `each` is told of every one that is through.
    pub(crate) async fn open(
        &mut self,
        target: &Target,
        users: impl Iterator<Item = u32> + 'static,
        mut each: impl FnMut(),
    ) -> Result<(), Failure> {
        let mut opening = target.connect_all(users);
        while let Some(link) = opening.next().await {
            self.add(link?, |_| ());
            each();
        }
        self.check()
    }

    /// Takes in a connection; `observe` sees all its frames. Returns its writing side.
    pub(crate) fn add(
        &mut self,
        link: Link,
        mut observe: impl FnMut(&Frame<'_>) + 'static,
    ) -> Rc<Writer> {
        let mut count = self.tally.subscriber(self.writers.len() as u32, self.stride);
        let tally = self.tally.clone();
        let reader = Reader::new(link, &self.scratch);
        let writer = reader.writer();
        let reading = spawn_local(async move {
            let end = reader.run(|now, frame| {
                observe(&frame);
                count(now, frame);
            });
            tally.count_end(end.await);
        });
        self.writers.push(writer.clone());
        self.readers.push(reading.abort_handle());
        writer
    }

    /// Drops all connections, as fast as can be while others share the thread.
    pub(crate) async fn close(mut self) {
        self.writers.clear();
        for readers in self.readers.chunks(AT_ONCE) {
            readers.iter().for_each(AbortHandle::abort);
            yield_now().await;
        }
    }

    /// Has every connection answer a ping, so that all are known to be subscribed.
    pub(crate) async fn call_roll(&self) -> Result<(), Failure> {
        let ping = frames::masked(OpCode::Ping, Payload::Borrowed(b""));
        let expected = self.tally.pongs.get() + self.writers.len() as u32;
        self.writers.iter().for_each(|writer| writer.send(&ping));
        let answered = async {
            while self.tally.pongs.get() < expected {
                let changed = self.tally.changed.notified();
                self.check()?;
                changed.await;
            }
            Ok(())
        };
        timeout(PATIENCE, answered).await.unwrap_or_else(|_| {
            let answers = self.tally.pongs.get();
            Err(Failure::Run(format!("{answers} of {expected} connections answer a ping")))
        })
    }

    /// Waits until all of `deliveries` have come, or no more do.
    pub(crate) async fn drain(&self, deliveries: u64) {
        let mut quiet = 0;
        while self.tally.deliveries.get() < deliveries && quiet < QUIET_TICKS {
            let before = self.tally.deliveries.get();
            sleep(TICK).await;
            quiet = if self.tally.deliveries.get() > before { 0 } else { quiet + 1 };
        }
    }

    /// Fails if the server does not want somebody.
    fn check(&self) -> Result<(), Failure> {
        let ends = self.tally.ends.borrow();
        match ends.first_key_value() {
            None => Ok(()),
            Some((end, count)) => Err(end.early(&format!("{count} connections"))),
        }
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.readers.iter().for_each(AbortHandle::abort);
    }
}

/// Connections dropped before others have a turn.
const AT_ONCE: usize = 32;

const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(20);

/// After two seconds without a delivery none is expected any more.
const QUIET_TICKS: u32 = 100;
