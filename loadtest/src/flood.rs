//! `flood`: one peer sends pongs and tiny fragments flat out while another's pings are timed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use fastwebsockets::{OpCode, Payload};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::cli::Flood;
use crate::clock::{Clock, Timer};
use crate::failure::Failure;
use crate::frames;
use crate::meter::{Meter, Usage};
use crate::reader::{Reader, Scratch};
use crate::report;
use crate::scanner::Frame;
use crate::schedule::{Rate, Schedule};
use crate::tally::{Latency, empty_histogram};
use crate::target::{Target, Wire};
use crate::writer::Writer;

/// Runs the command and prints its report.
pub(crate) async fn run(options: &Flood) -> Result<(), Failure> {
    let target = Target::fanfare(&options.server.url, &options.server.secret, Wire::Chat)?;
    let meter = Meter::new(options.server.pid)?;
    let clock = Clock::start();
    let scratch = Scratch::new(clock);
    let flooding = Reader::new(target.connect(1).await?, &scratch);
    let pinging = Reader::new(target.connect(2).await?, &scratch);
    let (flood, ping) = (flooding.writer(), pinging.writer());

    let sent = Cell::new(0u64);
    let due = RefCell::new(VecDeque::new());
    let times = RefCell::new(empty_histogram());
    let answered = Notify::new();
    let pong = |now: u64, frame: Frame<'_>| {
        if frame.head == PONG
            && let Some(due) = due.borrow_mut().pop_front()
        {
            times.borrow_mut().saturating_record(now.saturating_sub(due));
            answered.notify_waiters();
        }
    };
    let before = meter.read()?;
    let schedule = Schedule::new(Rate::PerSecond(PINGS), clock.now(), options.duration);
    let pings = async {
        send_pings(&ping, &due, schedule, clock).await?;
        while !due.borrow().is_empty() {
            if timeout(PATIENCE, answered.notified()).await.is_err() {
                break;
            }
        }
        Ok::<_, Failure>(())
    };
    tokio::select! {
        sent = pings => sent?,
        failure = send_flood(&flood, &sent) => return Err(failure),
        end = flooding.run(|_, _| ()) => return Err(end.early("the flooding connection")),
        end = pinging.run(pong) => return Err(end.early("the pinging connection")),
    }
    let usage = meter.read()?.since(&before);
    let outcome = Outcome {
        frames_per_second: sent.get() as f64 / usage.seconds,
        pong_ms: Latency::of(&times.borrow()),
        unanswered: due.borrow().len(),
        usage,
    };
    report::print(options.server.json, &outcome, || outcome.rows())
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Frames of the flood that the server took.
    frames_per_second: f64,
    /// From when a ping was due to when its pong was read.
    pong_ms: Latency,
    unanswered: usize,
    #[serde(flatten)]
    usage: Usage,
}

impl Outcome {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("flood", format!("{:.0} frames/s", self.frames_per_second)),
            ("pong", self.pong_ms.to_string()),
            ("unanswered", self.unanswered.to_string()),
        ];
        rows.extend(self.usage.rows());
        rows
    }
}

/// Pings as the chat protocol has them, on time whether answered or not.
async fn send_pings(
    writer: &Writer,
    due: &RefCell<VecDeque<u64>>,
    mut schedule: Schedule,
    clock: Clock,
) -> Result<(), Failure> {
    let mut timer = Timer::new(clock)?;
    while let Some(next) = schedule.next(clock.now()) {
        timer.until(next).await?;
        while let Some(at) = schedule.take(clock.now()) {
            due.borrow_mut().push_back(at);
            let ping = frames::masked(OpCode::Text, Payload::Borrowed(PING));
            writer.write_all(&ping).await?;
        }
    }
    Ok(())
}

/// One message in fragments of a byte with a pong after each, over and over.
async fn send_flood(writer: &Writer, sent: &Cell<u64>) -> Failure {
    let mut flood = Vec::new();
    let text = [PING, &[b' '; FRAGMENTS - PING.len()]].concat();
    for (index, byte) in text.iter().enumerate() {
        let opcode = if index == 0 { OpCode::Text } else { OpCode::Continuation };
        let fin = index + 1 == text.len();
        frames::append(&mut flood, fin, opcode, Payload::Borrowed(&[*byte]));
        frames::append(&mut flood, true, OpCode::Pong, Payload::Borrowed(b""));
    }
    loop {
        if let Err(error) = writer.write_all(&flood).await {
            return Failure::Run(format!("the flooding connection failed: {error}"));
        }
        sent.set(sent.get() + 2 * FRAGMENTS as u64);
        yield_now().await;
    }
}

/// Fragments of one message, which spaces fill up.
const FRAGMENTS: usize = 4096;

/// Pings a second.
const PINGS: f64 = 100.0;

/// How long the last pongs may take.
const PATIENCE: Duration = Duration::from_secs(5);

const PING: &[u8] = br#"{"type":"ping"}"#;
const PONG: &[u8] = br#"{"type":"pong"}"#;
