//! What a set of readers has seen, counted where they all can.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::Notify;

use crate::centrifuge;
use crate::mark::{Mark, Place};
use crate::reader::End;
use crate::scanner::{Frame, PONG, TEXT};

/// Counts of one run.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) deliveries: Cell<u64>,
    /// Those of the timed ones that came to a subscriber after a later publish, or again.
    pub(crate) disordered: Cell<u64>,
    /// Bytes of payload of the last delivery that was looked at.
    pub(crate) payload: Cell<u64>,
    pub(crate) pongs: Cell<u32>,
    /// Errors that the server answered publishing connections with, by code.
    pub(crate) errors: RefCell<BTreeMap<u32, u64>>,
    pub(crate) ends: RefCell<BTreeMap<End, u32>>,
    /// Woken by what is rare: pongs, errors and ends.
    pub(crate) changed: Notify,
    /// Only publishes due in here count for latency.
    window: RefCell<Range<u64>>,
    latencies: RefCell<Histogram<u64>>,
    place: Place,
}

impl Tally {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            deliveries: Cell::default(),
            disordered: Cell::default(),
            payload: Cell::default(),
            pongs: Cell::default(),
            errors: RefCell::default(),
            ends: RefCell::default(),
            changed: Notify::new(),
            window: RefCell::new(0..0),
            latencies: RefCell::new(empty_histogram()),
            place: Place::default(),
        })
    }

    /// Starts latencies afresh, for publishes due in `window`.
    pub(crate) fn measure(&self, window: Range<u64>) {
        *self.window.borrow_mut() = window;
        self.latencies.borrow_mut().reset();
    }

    /// Leaves out publishes due from now on.
    pub(crate) fn end_window(&self, now: u64) {
        self.window.borrow_mut().end = now;
    }

    pub(crate) fn latency(&self) -> Latency {
        Latency::of(&self.latencies.borrow())
    }

    /// What one subscriber does with its frames: counts them all, and times every `stride`th,
    /// beginning with another one than its neighbours.
    pub(crate) fn subscriber(
        self: &Rc<Self>,
        index: u32,
        stride: u32,
    ) -> impl FnMut(u64, Frame<'_>) + 'static {
        let tally = self.clone();
        let (mut untimed, mut next) = (index % stride, 0);
        move |now, frame| {
            let is_text = frame.opcode == TEXT;
            let Some(at) = is_text.then(|| tally.place.find(frame.head)).flatten() else {
                return tally.count_other(&frame);
            };
            tally.deliveries.set(tally.deliveries.get() + 1);
            if untimed > 0 {
                untimed -= 1;
                return;
            }
            untimed = stride - 1;
            tally.payload.set(frame.length);
            let Some(mark) = Mark::read(frame.head, at) else { return };
            if mark.sequence < next {
                tally.disordered.set(tally.disordered.get() + 1);
            }
            next = mark.sequence + 1;
            tally.time(now, mark);
        }
    }

    pub(crate) fn count_end(&self, end: End) {
        *self.ends.borrow_mut().entry(end).or_default() += 1;
        self.changed.notify_waiters();
    }

    /// How many connections ended how.
    pub(crate) fn ends(&self) -> BTreeMap<String, u32> {
        let ends = self.ends.borrow();
        ends.iter().map(|(end, count)| (end.to_string(), *count)).collect()
    }

    /// Publishes that the server had no room for.
    pub(crate) fn refused(&self) -> u64 {
        self.errors.borrow().get(&TOO_MANY).copied().unwrap_or(0)
    }

    fn time(&self, now: u64, Mark { due, .. }: Mark) {
        if self.window.borrow().contains(&due) {
            self.latencies.borrow_mut().saturating_record(now.saturating_sub(due));
        }
    }

    #[cold]
    fn count_other(&self, frame: &Frame<'_>) {
        if frame.opcode == PONG {
            self.pongs.set(self.pongs.get() + 1);
        } else if let Some(code) = error_code(frame.head) {
            *self.errors.borrow_mut().entry(code).or_default() += 1;
        }
        self.changed.notify_waiters();
    }
}

/// Times from when publishes were due to when they were read, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// How many deliveries were timed.
    pub(crate) samples: u64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: millis(histogram.value_at_quantile(0.5)),
            p99: millis(histogram.value_at_quantile(0.99)),
            max: millis(histogram.max()),
            samples: histogram.len(),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, max, samples } = self;
        write!(f, "p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms ({samples} timed)")
    }
}

pub(crate) fn millis(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e3
}

/// For nanoseconds up to a minute, to three digits.
#[allow(clippy::expect_used, reason = "the bounds are constant and allowed")]
pub(crate) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, 60_000_000_000, 3).expect("bounds are in order")
}

/// The code of a chat `error`, or of one that a publish on a channel is answered with.
pub(crate) fn error_code(payload: &[u8]) -> Option<u32> {
    if let Some((code, _)) = centrifuge::publish_error(payload) {
        return Some(code);
    }
    let rest = payload.strip_prefix(br#"{"type":"error","code":"#)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// The error for a publish that there is no room for.
pub(crate) const TOO_MANY: u32 = 111;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_later_publish_or_twice_is_out_of_order() {
        let tally = Tally::new();
        let mut subscribers = [0, 1].map(|index| tally.subscriber(index, 1));
        for (subscriber, sequences) in
            subscribers.iter_mut().zip([&[0, 2, 1, 3, 3], &[1, 2, 4, 5, 9]])
        {
            for sequence in sequences {
                let mut head = [0; Mark::BYTES];
                Mark { publisher: 0, sequence: *sequence, due: 5 }.write(&mut head);
                subscriber(7, Frame { opcode: TEXT, length: head.len() as u64, head: &head });
            }
        }
        assert_eq!((tally.deliveries.get(), tally.disordered.get()), (10, 2));
    }
}
