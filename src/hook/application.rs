//! The application as the hub sees it: asked within a time, told in order, and counted.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::notices::Notices;
use super::{Change, Consent, Decision, Failure, Hooks, Question, Refusal};
use crate::config::{Hook, HookCall, OnFailure};
use crate::hub::Inner;
use crate::metrics::Tally;

/// What an application said: no more than the settings do, or a yes with what comes with it, or no.
pub(crate) type Answer = Result<Option<Consent>, Refusal>;

/// Who is asked and told.
pub(crate) struct Application {
    hooks: Box<dyn Hooks>,
    timeout: Duration,
    on_failure: OnFailure,
    tells_channels: bool,
    tells_users: bool,
    pub(crate) notices: Notices,
    pub(crate) stats: HookStats,
    is_failing: AtomicBool,
}

impl Application {
    /// An application that is told what `told` holds.
    pub(crate) fn new(hooks: Box<dyn Hooks>, config: &Hook, told: &[HookCall]) -> Self {
        Self {
            hooks,
            timeout: config.timeout,
            on_failure: config.on_failure,
            tells_channels: told.contains(&HookCall::Channels),
            tells_users: told.contains(&HookCall::Users),
            notices: Notices::new(config.queue),
            stats: HookStats::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Asks, if the application has a say.
    pub(crate) fn ask(&self, question: &Question<'_>) -> Option<Decision> {
        let decision = self.hooks.decide(question)?;
        self.stats.calls.increment(question.act.call().label());
        Some(decision)
    }

    /// The answer, or what stands for one that does not come.
    pub(crate) async fn answer(&self, decision: Decision) -> Answer {
        let timed_out = Err(Refusal::Failed(Failure::Timeout));
        let decided = tokio::time::timeout(self.timeout, decision).await.unwrap_or(timed_out);
        match decided {
            Err(Refusal::Failed(failure)) => {
                self.note_failure(failure);
                match self.on_failure {
                    OnFailure::Allow => Ok(None),
                    OnFailure::Refuse => Err(Refusal::Failed(failure)),
                }
            }
            decided => {
                self.note_success();
                decided.map(|consent| Some(consent.in_one_line()))
            }
        }
    }

    /// Whether it is told of users joining and leaving.
    pub(crate) fn tells_users(&self) -> bool {
        self.tells_users
    }

    /// Leaves word of a change, if the application is told of such. Never waits.
    pub(crate) fn notice(&self, change: Change) {
        let is_told = match change.call() {
            HookCall::Channels => self.tells_channels,
            _ => self.tells_users,
        };
        if is_told {
            self.notices.push(change);
        }
    }

    /// Resolves once all notices are told, or after the time that telling them may take.
    pub(crate) async fn flush(&self) {
        let _ = tokio::time::timeout(self.timeout, self.notices.emptied()).await;
    }

    /// Tells notices for ever, in order, each batch until it is taken.
    pub(super) async fn tell(&self) {
        let mut pause = PAUSE_MIN;
        loop {
            let batch = self.notices.batch().await;
            // A task of its own, as one that panics must not end the telling.
            let telling = tokio::time::timeout(self.timeout, self.hooks.notify(&batch));
            let told = match tokio::spawn(telling).await {
                Ok(Ok(told)) => told,
                Ok(Err(_)) => Err(Failure::Timeout),
                Err(_) => Err(Failure::Answer),
            };
            match told {
                Ok(()) => {
                    self.note_success();
                    self.notices.forget(&batch);
                    pause = PAUSE_MIN;
                }
                Err(failure) => {
                    self.note_failure(failure);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Counts a failure, and tells the log of the first after a success.
    fn note_failure(&self, failure: Failure) {
        self.stats.failures.increment(failure.label());
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%failure, "a hook fails");
        }
    }

    fn note_success(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            self.is_failing.store(false, Ordering::Relaxed);
            tracing::info!("hooks answer again");
        }
    }
}

impl Inner {
    /// The answer to a question that was asked.
    pub(crate) async fn answer(&self, decision: Decision) -> Answer {
        match &self.application {
            Some(application) => application.answer(decision).await,
            None => Ok(None),
        }
    }

    /// A yes, also where there is no application or it has no say.
    pub(crate) async fn consent(&self, question: &Question<'_>) -> Result<Consent, Refusal> {
        let Some(application) = &self.application else { return Ok(Consent::default()) };
        let Some(decision) = application.ask(question) else { return Ok(Consent::default()) };
        Ok(application.answer(decision).await?.unwrap_or_default())
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application").field("notices", &self.notices).finish_non_exhaustive()
    }
}

/// What is counted of hooks.
#[derive(Debug, Default)]
pub(crate) struct HookStats {
    /// Questions asked, by call.
    pub(crate) calls: Tally<&'static str>,
    /// Questions without an answer and notices that were not taken, by reason.
    pub(crate) failures: Tally<&'static str>,
}

/// Pauses between tries to tell something: short for an application that restarts, and bounded so that
/// one that comes back need not wait.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
