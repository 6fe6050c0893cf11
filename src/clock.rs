//! A shard's time, less that by which its sweep came late: forgiving turns it back.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Milliseconds of a shard's life. Deadlines are kept in it so that a process that was stopped,
/// or a shard that was busy, does not blame its peers.
pub(crate) type Millis = u64;

#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    forgiven: Cell<Duration>,
}

impl Clock {
    /// A clock that reads a little over 0, which stands for *never*.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), forgiven: Cell::default() }
    }

    pub(crate) fn now(&self) -> Millis {
        millis(self.start.elapsed().saturating_sub(self.forgiven.get())) + 1
    }

    /// Adds a sweep's lateness to every deadline, by not letting it count as time.
    pub(crate) fn forgive(&self, late: Duration) {
        self.forgiven.set(self.forgiven.get() + late);
    }
}

/// A duration in a shard's unit.
pub(crate) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgiven_time_does_not_count() {
        let clock =
            Clock { start: Instant::now() - Duration::from_secs(60), forgiven: Cell::default() };
        assert!(clock.now() >= 60_000);
        clock.forgive(Duration::from_secs(59));
        assert!((1_000..59_000).contains(&clock.now()));
    }
}
