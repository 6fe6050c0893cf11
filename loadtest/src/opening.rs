//! Many connections opened, a bounded number at once.

use std::pin::Pin;

use tokio::task::JoinSet;

use crate::failure::Failure;

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Failure>>>>;

/// What is to be opened, and what is under way.
pub(crate) struct Opening<T> {
    waiting: Box<dyn Iterator<Item = Connecting<T>>>,
    pending: JoinSet<Result<T, Failure>>,
}

impl<T: 'static> Opening<T> {
    /// Each future opens one.
    pub(crate) fn new<F>(futures: impl Iterator<Item = F> + 'static) -> Self
    where
        F: Future<Output = Result<T, Failure>> + 'static,
    {
        let waiting = futures.map(|future| Box::pin(future) as Connecting<T>);
        Self { waiting: Box::new(waiting), pending: JoinSet::new() }
    }

    /// The next one that is through; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Result<T, Failure>> {
        while self.pending.len() < CONCURRENT
            && let Some(future) = self.waiting.next()
        {
            self.pending.spawn_local(future);
        }
        let ended = self.pending.join_next().await?;
        Some(ended.unwrap_or_else(|error| Err(Failure::Run(error.to_string()))))
    }

    /// Waits for all; the first that fails is a failure.
    pub(crate) async fn all(mut self) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        while let Some(one) = self.next().await {
            all.push(one?);
        }
        Ok(all)
    }
}

/// Handshakes under way at once: enough to keep a server busy, few enough not to keep others waiting.
const CONCURRENT: usize = 32;
