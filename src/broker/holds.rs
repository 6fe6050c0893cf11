//! Users on their way in: what is sent to one once it is told that it is here must find it, so its topic is
//! followed before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::hub::Inner;
use crate::lock::lock;
use crate::user::UserId;

/// Users whose topics are followed though they may have no connection yet.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<UserId, Hold>>);

#[derive(Debug, Default)]
struct Hold {
    count: usize,
    waiting: Vec<oneshot::Sender<()>>,
}

/// Has a user's topic followed for as long as it is held.
#[derive(Debug)]
pub(crate) struct UserHold {
    hub: Arc<Inner>,
    user: UserId,
}

impl Holds {
    pub(super) fn is_held(&self, user: &UserId) -> bool {
        self.held().contains_key(user)
    }

    /// A user's topic is followed.
    pub(super) fn wake(&self, user: &UserId) {
        if let Some(hold) = self.held().get_mut(user) {
            // Who gave up no longer listens.
            for waiting in hold.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<UserId, Hold>> {
        lock(&self.0)
    }
}

impl Inner {
    /// Waits until a user's topic is followed, but not for long: a connection must not be refused for a
    /// broker that is not there. `None` where there is nothing to wait for.
    pub(crate) async fn hold_user(self: &Arc<Self>, user: &UserId) -> Option<UserHold> {
        let broker = self.broker.as_ref()?;
        if self.registry.targets(user).is_some() || !broker.health.is_trusted() {
            return None;
        }
        let (sender, followed) = oneshot::channel();
        {
            let mut held = broker.holds.held();
            let hold = held.entry(user.clone()).or_default();
            hold.count += 1;
            hold.waiting.push(sender);
        }
        let held = UserHold { hub: self.clone(), user: user.clone() };
        broker.users.add(user.clone());
        let _ = tokio::time::timeout(PATIENCE, followed).await;
        Some(held)
    }
}

impl Drop for UserHold {
    fn drop(&mut self) {
        let Some(broker) = &self.hub.broker else { return };
        let mut held = broker.holds.held();
        if let Some(hold) = held.get_mut(&self.user) {
            hold.count -= 1;
            if hold.count == 0 {
                held.remove(&self.user);
            }
        }
        drop(held);
        broker.users.add(self.user.clone());
    }
}

/// How long a connection waits: many round trips to a broker that is well.
const PATIENCE: Duration = Duration::from_millis(500);
