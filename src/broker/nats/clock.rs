//! The time at the server, which all nodes go by.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// How late it was there, since 1970, and when that was here.
#[derive(Debug)]
pub(super) struct Clock(Mutex<(Duration, Instant)>);

impl Clock {
    pub(super) fn new(then: Duration, at: Instant) -> Self {
        Self(Mutex::new((then, at)))
    }

    pub(super) fn now(&self) -> Duration {
        let (then, at) = *lock(&self.0);
        then + at.elapsed()
    }

    /// Sets it anew, as clocks drift apart and are set.
    pub(super) fn set(&self, then: Duration, at: Instant) {
        *lock(&self.0) = (then, at);
    }
}
