//! What becomes of a publish.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot::{self, error::RecvError};

use crate::error::PublishError;
use crate::hub::publish::Published;

/// What becomes of a publish: known at once on one node, and once the broker has it where several
/// nodes share one.
///
/// A future that needs no runtime. The publish is under way whether or not it is awaited or kept.
///
/// ```
/// use fanfare::{Config, Hub};
///
/// let hub = Hub::start(Config::default())?;
/// let connections = hub.broadcast("{}").wait()?; // or .await
/// assert_eq!(connections, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it says whether the publish was admitted"]
pub struct Receipt<T>(State<T>);

enum State<T> {
    /// `None` once it was given.
    Known(Option<Result<T, PublishError>>),
    Awaited(oneshot::Receiver<Vec<Result<Published, PublishError>>>, fn(Published) -> T),
}

impl<T> Receipt<T> {
    /// Blocks this thread until it is known: not at all on one node.
    ///
    /// # Errors
    ///
    /// [`PublishError`]
    ///
    /// # Panics
    ///
    /// On a thread of an asynchronous runtime, if a broker has yet to answer: await it there.
    pub fn wait(self) -> Result<T, PublishError> {
        match self.0 {
            State::Known(known) => known.unwrap_or(Err(PublishError::Uncertain)),
            State::Awaited(answer, give) => only(answer.blocking_recv()).map(give),
        }
    }

    /// The same, of which it only counts whether it was.
    pub(crate) fn done(self) -> Receipt<()> {
        Receipt(match self.0 {
            State::Known(known) => State::Known(known.map(|result| result.map(drop))),
            State::Awaited(answer, _) => State::Awaited(answer, drop),
        })
    }

    pub(crate) fn known(result: Result<T, PublishError>) -> Self {
        Self(State::Known(Some(result)))
    }

    /// One that is given once the broker has answered a request of one publish.
    pub(crate) fn awaited(
        answer: oneshot::Receiver<Vec<Result<Published, PublishError>>>,
        give: fn(Published) -> T,
    ) -> Self {
        Self(State::Awaited(answer, give))
    }

    /// What is known already, or the receipt.
    pub(crate) fn now(self) -> Result<Result<T, PublishError>, Self> {
        match self.0 {
            State::Known(Some(result)) => Ok(result),
            _ => Err(self),
        }
    }
}

impl<T> Future for Receipt<T> {
    type Output = Result<T, PublishError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Neither state is pinned: a value that is handed out, and a receiver that may move.
        match &mut self.get_mut().0 {
            State::Known(known) => {
                Poll::Ready(known.take().unwrap_or(Err(PublishError::Uncertain)))
            }
            State::Awaited(answer, give) => {
                Pin::new(answer).poll(context).map(|answer| only(answer).map(*give))
            }
        }
    }
}

impl<T> Unpin for Receipt<T> {}

/// What became of the only one. If the broker's thread ended with the hub it took the answer along.
fn only(
    answer: Result<Vec<Result<Published, PublishError>>, RecvError>,
) -> Result<Published, PublishError> {
    let only = answer.ok().and_then(|mut answers| answers.pop());
    only.unwrap_or(Err(PublishError::Uncertain))
}

impl<T> fmt::Debug for Receipt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_known = matches!(self.0, State::Known(_));
        f.debug_struct("Receipt").field("is_known", &is_known).finish_non_exhaustive()
    }
}
