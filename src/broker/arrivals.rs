//! Users on their way in: what is sent to one once it is told that it is here must find it, so its topic is
//! followed before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::hub::Inner;
use crate::user::UserId;

/// Users whose topics are followed though they may have no connection yet.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<HashMap<UserId, Arrival>>);

#[derive(Debug, Default)]
struct Arrival {
    expected: usize,
    waiting: Vec<oneshot::Sender<()>>,
}

/// Has a user's topic followed for as long as it is held.
#[derive(Debug)]
pub(crate) struct Expected {
    hub: Arc<Inner>,
    user: UserId,
}

impl Arrivals {
    pub(super) fn is_expected(&self, user: &UserId) -> bool {
        self.arrivals().contains_key(user)
    }

    /// A user's topic is followed.
    pub(super) fn follow(&self, user: &UserId) {
        if let Some(arrival) = self.arrivals().get_mut(user) {
            // Who gave up no longer listens.
            for waiting in arrival.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
    }

    fn arrivals(&self) -> MutexGuard<'_, HashMap<UserId, Arrival>> {
        // A panic beside it leaves no arrival half noted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Waits until a user's topic is followed, but not for long: a connection must not be refused for a
    /// broker that is not there. `None` where there is nothing to wait for.
    pub(crate) async fn expect(self: &Arc<Self>, user: &UserId) -> Option<Expected> {
        let broker = self.broker.as_ref()?;
        if self.registry.targets(user).is_some() || !broker.health.is_trusted() {
            return None;
        }
        let (sender, followed) = oneshot::channel();
        {
            let mut arrivals = broker.arrivals.arrivals();
            let arrival = arrivals.entry(user.clone()).or_default();
            arrival.expected += 1;
            arrival.waiting.push(sender);
        }
        let expected = Expected { hub: self.clone(), user: user.clone() };
        broker.users.add(user.clone());
        let _ = tokio::time::timeout(PATIENCE, followed).await;
        Some(expected)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let Some(broker) = &self.hub.broker else { return };
        let mut arrivals = broker.arrivals.arrivals();
        if let Some(arrival) = arrivals.get_mut(&self.user) {
            arrival.expected -= 1;
            if arrival.expected == 0 {
                arrivals.remove(&self.user);
            }
        }
        drop(arrivals);
        broker.users.add(self.user.clone());
    }
}

/// How long a connection waits: many round trips to a broker that is well.
const PATIENCE: Duration = Duration::from_millis(500);
