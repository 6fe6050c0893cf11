//! Locks that are held for a moment, and that a panic leaves in order.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. For what no panic can leave half written, as a step under it is whole or not begun.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
