//! Whether the broker can be trusted: whether this node hears what it tells itself, and follows all that
//! its connections need.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::BrokerReady;
use crate::lock::lock;

/// What is known of the broker.
#[derive(Debug)]
pub(crate) struct Health {
    ready: BrokerReady,
    state: Mutex<State>,
    /// The pulse that last came back, and how often: once by each server.
    heard: watch::Sender<(u64, usize)>,
    pulses: AtomicU64,
    followed: watch::Sender<bool>,
    trusted: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    /// Why the broker takes nothing that must be remembered, if it does not.
    refusal: Option<String>,
    /// Why it is not trusted, and since when.
    doubt: Option<(String, Instant)>,
    /// Whether it was trusted since the node began.
    was_trusted: bool,
    /// Whether it was trusted since the last session was lost.
    is_proven: bool,
    /// How long a pulse last took to come back.
    lag: Duration,
    /// When the first of those was sent that have not come back since.
    pulsed: Option<Instant>,
}

/// Why the broker is not trusted, and for how long.
#[derive(Debug)]
pub(crate) struct Doubt {
    reason: String,
    age: Duration,
}

impl Health {
    pub(super) fn new(ready: BrokerReady) -> Self {
        let doubt = Some(("it is not followed yet".to_owned(), Instant::now()));
        Self {
            ready,
            state: Mutex::new(State {
                refusal: None,
                doubt,
                was_trusted: false,
                is_proven: false,
                lag: Duration::ZERO,
                pulsed: None,
            }),
            heard: watch::Sender::new((0, 0)),
            pulses: AtomicU64::new(0),
            followed: watch::Sender::new(false),
            trusted: watch::Sender::new(false),
        }
    }

    /// Whether there is no doubt.
    pub(crate) fn is_trusted(&self) -> bool {
        self.state().doubt.is_none()
    }

    /// How long a pulse last took to come back, or has been on its way if that is longer.
    pub(crate) fn lag(&self) -> Duration {
        let State { pulsed, lag, .. } = &*self.state();
        pulsed.as_ref().map_or(*lag, |pulsed| pulsed.elapsed().max(*lag))
    }

    /// What speaks against the node being ready: any doubt if `strictly` or set so, else one that lasts.
    pub(crate) fn doubt(&self, strictly: bool) -> Option<Doubt> {
        let state = self.state();
        let (reason, since) = state.doubt.as_ref()?;
        let grace = match self.ready {
            // A node that never trusted it is not there yet.
            BrokerReady::Grace if !strictly && state.was_trusted => GRACE,
            _ => Duration::ZERO,
        };
        let age = since.elapsed();
        (age >= grace).then(|| Doubt { reason: reason.clone(), age })
    }

    /// The session is lost.
    pub(super) fn lose(&self, reason: String) {
        self.followed.send_replace(false);
        self.trusted.send_replace(false);
        let mut state = self.state();
        (state.refusal, state.is_proven) = (None, false);
        // What would be told now would not come back.
        state.pulsed.get_or_insert_with(Instant::now);
        drop(state);
        self.doubt_for(reason);
    }

    /// Something speaks against the broker; a doubt that there was goes on for that reason.
    pub(super) fn doubt_for(&self, reason: String) {
        let mut state = self.state();
        let since = state.doubt.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        if state.doubt.as_ref().is_none_or(|(before, _)| *before != reason) {
            tracing::warn!(reason, "the broker is in doubt");
        }
        state.doubt = Some((reason, since));
    }

    /// All that the connections need is followed.
    pub(super) fn follow(&self) {
        self.followed.send_replace(true);
    }

    /// Resolves once all is followed.
    pub(super) async fn followed(&self) {
        // The sender is here.
        let _ = self.followed.subscribe().wait_for(|followed| *followed).await;
    }

    /// The number of the next pulse, which is sent now; never given again.
    pub(super) fn next_pulse(&self) -> u64 {
        self.state().pulsed.get_or_insert_with(Instant::now);
        self.pulses.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A pulse came back.
    pub(super) fn hear(&self, pulse: u64) {
        self.heard.send_modify(|(last, times)| {
            *times = if *last == pulse { *times + 1 } else { 1 };
            *last = pulse;
        });
    }

    /// Resolves once a pulse has come back so many times.
    pub(super) async fn heard(&self, pulse: u64, times: usize) {
        let _ = self.heard.subscribe().wait_for(|heard| *heard == (pulse, times)).await;
    }

    /// The broker takes what must be remembered, or says why not.
    pub(super) fn set_refusal(&self, refusal: Option<String>) {
        if let Some(reason) = &refusal {
            self.doubt_for(reason.clone());
        }
        self.state().refusal = refusal;
    }

    /// A pulse came back after so long; says whether that ended a doubt.
    pub(super) fn heard_after(&self, lag: Duration) -> bool {
        let mut state = self.state();
        (state.lag, state.pulsed) = (lag, None);
        let is_trusted = state.refusal.is_none() && *self.followed.borrow();
        if is_trusted {
            (state.was_trusted, state.is_proven) = (true, true);
            self.trusted.send_replace(true);
        }
        is_trusted && state.doubt.take().is_some()
    }

    /// Whether it was trusted since the last session was lost.
    pub(super) fn is_proven(&self) -> bool {
        self.state().is_proven
    }

    /// Resolves once there is no doubt.
    pub(super) async fn trusted(&self) {
        let _ = self.trusted.subscribe().wait_for(|trusted| *trusted).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker is in doubt for {} s: {}", self.age.as_secs(), self.reason)
    }
}

/// How long a doubt may last before the node says that it is not ready, so that one blip does not take
/// every node out of the balancer.
const GRACE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Health {
        let health = Health::new(BrokerReady::Grace);
        health.follow();
        assert!(health.heard_after(Duration::from_millis(2)));
        health
    }

    #[test]
    fn what_is_not_followed_is_not_trusted_whatever_is_heard() {
        let health = Health::new(BrokerReady::Grace);
        assert!(!health.heard_after(Duration::ZERO) && !health.is_trusted());
        health.follow();
        assert!(health.heard_after(Duration::ZERO) && health.is_trusted());
    }

    #[test]
    fn a_fresh_doubt_counts_only_for_the_strict() {
        let health = trusted();
        assert!(health.doubt(true).is_none());
        health.lose("it is gone".to_owned());
        assert!(health.doubt(false).is_none());
        let doubt = health.doubt(true).map(|doubt| doubt.to_string());
        assert_eq!(doubt.as_deref(), Some("the broker is in doubt for 0 s: it is gone"));
        let strict = Health::new(BrokerReady::Strict);
        assert!(strict.doubt(false).is_some());
    }

    #[test]
    fn a_broker_that_takes_nothing_is_in_doubt_until_it_does() {
        let health = trusted();
        health.set_refusal(Some("OOM".to_owned()));
        assert!(!health.heard_after(Duration::ZERO) && !health.is_trusted());
        health.set_refusal(None);
        assert!(health.heard_after(Duration::ZERO) && health.is_trusted());
    }

    #[test]
    fn what_does_not_come_back_lags_ever_more_and_a_refusal_does_not() {
        let health = trusted();
        health.set_refusal(Some("OOM".to_owned()));
        assert_eq!(health.lag(), Duration::from_millis(2));
        health.next_pulse();
        std::thread::sleep(Duration::from_millis(5));
        health.next_pulse();
        assert!(health.lag() >= Duration::from_millis(5));
        health.heard_after(Duration::from_millis(1));
        assert_eq!(health.lag(), Duration::from_millis(1));
        health.lose("it is gone".to_owned());
        std::thread::sleep(Duration::from_millis(5));
        assert!(health.lag() >= Duration::from_millis(5));
    }

    #[tokio::test]
    async fn a_pulse_is_heard_once_every_server_has_brought_it() {
        let health = Health::new(BrokerReady::Grace);
        let (old, pulse) = (health.next_pulse(), health.next_pulse());
        [old, pulse, pulse].into_iter().for_each(|number| health.hear(number));
        health.heard(pulse, 2).await;
    }
}
