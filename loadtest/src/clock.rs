//! The time of a run, and waiting for it to the microsecond.

use std::io;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe;

/// Counts nanoseconds from when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(crate) fn now(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Waits on a clock. Tokio's own timers count whole milliseconds, which would show in latencies.
#[derive(Debug)]
pub(crate) struct Timer {
    clock: Clock,
    /// A timer's descriptor: read like a pipe's, which tokio has a safe type for.
    fd: pipe::Receiver,
}

impl Timer {
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { clock, fd: pipe::Receiver::from_owned_fd_unchecked(fd)? })
    }

    /// Returns at the time `at`, or at once if that has passed.
    pub(crate) async fn until(&mut self, at: u64) -> io::Result<()> {
        let left = Duration::from_nanos(at.saturating_sub(self.clock.now()));
        if left.is_zero() {
            return Ok(());
        }
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let left =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let once = Itimerspec { it_interval: never, it_value: left };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        let mut expirations = [0; 8];
        loop {
            self.fd.readable().await?;
            match self.fd.try_read(&mut expirations) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_timer_is_not_early_and_may_be_used_again() {
        let clock = Clock::start();
        let mut timer = Timer::new(clock).unwrap();
        for at in [1_500_000, 1_600_000, 0, 3_000_000] {
            timer.until(at).await.unwrap();
            assert!(clock.now() >= at);
        }
    }
}
