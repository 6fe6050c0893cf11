//! When each publish is due, whatever became of those before it.
//!
//! The schedule is open: a publisher that falls behind finds what it missed still due at the times
//! it was due, so that waiting shows as latency and is not left out.

use std::time::Duration;

/// Publishes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    PerSecond(f64),
    /// As fast as they are taken.
    FlatOut,
}

/// Times in the clock's nanoseconds, from `start` until before `end`.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    rate: Rate,
    start: u64,
    end: u64,
    /// How many are due at once.
    burst: u32,
    made: u32,
}

impl Schedule {
    pub(crate) fn new(rate: Rate, start: u64, length: Duration) -> Self {
        Self { rate, start, end: start + length.as_nanos() as u64, burst: 1, made: 0 }
    }

    /// The same rate in bursts: so many publishes are due at once, and none until the next.
    pub(crate) fn in_bursts(self, burst: u32) -> Self {
        Self { burst, ..self }
    }

    /// One burst.
    pub(crate) fn once(burst: u32, at: u64) -> Self {
        Self::new(Rate::PerSecond(f64::from(burst)), at, Duration::from_secs(1)).in_bursts(burst)
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// How many one call holds at most, also of what is late: a burst, if there are bursts.
    pub(crate) fn of_call(&self) -> u64 {
        if self.burst > 1 { self.burst.into() } else { u64::MAX }
    }

    /// When the next publish is due; `None` once there is none.
    pub(crate) fn next(&self, now: u64) -> Option<u64> {
        let due = match self.rate {
            Rate::PerSecond(rate) => {
                let before = self.made - self.made % self.burst;
                self.start + (f64::from(before) * NANOS / rate) as u64
            }
            Rate::FlatOut => now.max(self.start),
        };
        (due < self.end).then_some(due)
    }

    /// Takes the next publish if it is due; returns when it was.
    pub(crate) fn take(&mut self, now: u64) -> Option<u64> {
        let due = self.next(now).filter(|due| *due <= now)?;
        self.made += 1;
        Some(due)
    }
}

const NANOS: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_still_due_when_it_was() {
        let mut schedule = Schedule::new(Rate::PerSecond(10.0), 1000, Duration::from_secs(1));
        assert_eq!(schedule.take(999), None);
        assert_eq!(schedule.take(1000), Some(1000));
        assert_eq!(schedule.take(1000), None);
        assert_eq!(schedule.next(1000), Some(100_001_000));
        let late = 5_000_000_000;
        assert_eq!(schedule.take(late), Some(100_001_000));
        assert_eq!(schedule.take(late), Some(200_001_000));
        let rest = std::iter::from_fn(|| schedule.take(late)).count();
        assert_eq!(rest, 7);
        assert_eq!(schedule.next(late), None);
    }

    #[test]
    fn long_schedules_do_not_drift() {
        let mut schedule = Schedule::new(Rate::PerSecond(3.0), 0, Duration::from_secs(1 << 20));
        schedule.made = 3_000_000;
        assert_eq!(schedule.next(0), Some(1_000_000_000_000_000));
    }

    #[test]
    fn bursts_keep_the_rate() {
        let mut schedule = Schedule::new(Rate::PerSecond(300.0), 0, Duration::from_secs(1));
        schedule = schedule.in_bursts(30);
        let at_once = std::iter::from_fn(|| schedule.take(0)).count();
        assert_eq!((at_once, schedule.next(0)), (30, Some(100_000_000)));
        assert_eq!(std::iter::from_fn(|| schedule.take(u64::MAX)).count(), 270);
        let mut once = Schedule::once(64, 5);
        assert_eq!(std::iter::from_fn(|| once.take(5)).count(), 64);
        assert_eq!(once.next(5), None);
    }

    #[test]
    fn a_call_holds_a_burst_or_all_there_is() {
        let schedule = Schedule::new(Rate::FlatOut, 0, Duration::from_secs(1));
        assert_eq!(schedule.of_call(), u64::MAX);
        assert_eq!(schedule.in_bursts(256).of_call(), 256);
    }

    #[test]
    fn flat_out_is_always_due_until_the_end() {
        let mut schedule = Schedule::new(Rate::FlatOut, 100, Duration::from_nanos(50));
        assert_eq!(schedule.take(99), None);
        assert_eq!(schedule.take(120), Some(120));
        assert_eq!(schedule.take(120), Some(120));
        assert_eq!(schedule.take(150), None);
        assert_eq!(schedule.next(150), None);
    }
}
