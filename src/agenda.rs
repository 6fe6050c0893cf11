//! What is to be looked at again: names, each once, however often they change meanwhile.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::lock::lock;

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

    /// Takes at most so many, once there are any. For one task.
    pub(crate) async fn take(&self, most: usize) -> Taken<'_, T> {
        loop {
            let taken = {
                let mut items = self.items();
                items.extract_if(|_| true).take(most).collect::<Vec<_>>()
            };
            if !taken.is_empty() {
                return Taken { agenda: self, items: taken };
            }
            self.added.notified().await;
        }
    }

    fn items(&self) -> MutexGuard<'_, HashSet<T>> {
        lock(&self.items)
    }
}

/// What was taken. Dropped, it goes back, but for what is done: whoever took it may be stopped wherever
/// it waits.
#[derive(Debug)]
pub(crate) struct Taken<'a, T: Hash + Eq> {
    agenda: &'a Agenda<T>,
    items: Vec<T>,
}

impl<T: Hash + Eq> Taken<'_, T> {
    pub(crate) fn items(&self) -> &[T] {
        &self.items
    }

    /// All is done but what is left.
    pub(crate) fn done_but(mut self, left: Vec<T>) {
        self.items = left;
    }
}

impl<T: Hash + Eq> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        self.items.drain(..).for_each(|item| self.agenda.add(item));
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
        let first = agenda.take(2).await;
        assert_eq!((first.items().len(), agenda.items().len()), (2, 1));
        let second = agenda.take(2).await;
        let mut taken = [first.items(), second.items()].concat();
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
    }

    #[tokio::test]
    async fn what_is_not_done_is_looked_at_again() {
        let agenda = Agenda::default();
        [1, 2, 3].into_iter().for_each(|item| agenda.add(item));
        drop(agenda.take(3).await);
        assert_eq!(agenda.items().len(), 3);
        agenda.take(3).await.done_but(vec![2]);
        assert_eq!(agenda.take(3).await.items(), [2]);
    }
}
