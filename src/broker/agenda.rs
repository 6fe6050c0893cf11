//! What is to be looked at again: names, each once, however often they change meanwhile.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A set that is filled from any thread and emptied by one task. What stands in it says only that
/// something changed; how it is now is looked up when its turn comes, so nothing is done twice and no
/// order of changes can be mixed up.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    items: Mutex<HashSet<T>>,
    added: Notify,
}

impl<T: Hash + Eq> Agenda<T> {
    /// Adds one, unless it is there.
    pub(crate) fn add(&self, item: T) {
        self.items().insert(item);
        self.added.notify_one();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.items().len()
    }

    /// Takes at most so many, once there are any. For one task.
    pub(crate) async fn take(&self, most: usize) -> Vec<T> {
        loop {
            let taken = {
                let mut items = self.items();
                items.extract_if(|_| true).take(most).collect::<Vec<_>>()
            };
            if !taken.is_empty() {
                return taken;
            }
            self.added.notified().await;
        }
    }

    fn items(&self) -> MutexGuard<'_, HashSet<T>> {
        // A panic beside it leaves no item half added.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { items: Mutex::default(), added: Notify::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_changes_often_is_looked_at_once() {
        let agenda = Agenda::default();
        [1, 2, 1, 3].into_iter().for_each(|item| agenda.add(item));
        let mut taken = agenda.take(2).await;
        assert_eq!((taken.len(), agenda.len()), (2, 1));
        taken.extend(agenda.take(2).await);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
    }
}
