//! The time of a run, and waiting for it to the microsecond.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { clock, fd: AsyncFd::try_with_interest(fd, Interest::READABLE)? })
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
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        let fired = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut [0; 8])?);
        self.fd.async_io(Interest::READABLE, fired).await?;
        Ok(())
    }
}
