//! A lock that is held.

use std::{ops::Deref, sync::Arc};

use crate::{Hold, Result, line::Held};

/// A lock that is held; from [`Mutex::lock`](crate::Mutex::lock). What it can be asked is in [`Hold`].
///
/// It belongs to no task and no thread, and needs neither to be dropped: dropping it releases the lock in the
/// background, through a place in the client's janitor that was kept for it since before the lock was asked
/// for. [`LockGuard::release`] is for those who must know. If the runtime of the client has ended, or the guard is
/// forgotten, the lock goes with the session.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct LockGuard {
    held: Held,
}

impl LockGuard {
    pub(super) fn new(held: Held) -> Self {
        Self { held }
    }

    /// Releases the lock and waits until the ensemble has confirmed it.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) if it was lost before. So `Ok` means that it was held until now. After
    /// any other error the janitor goes on until the lock is free.
    ///
    /// # Cancel safety
    /// Dropped, it goes on in the background.
    pub async fn release(self) -> Result<()> {
        self.held.release().await
    }

    /// For several who hold it together: the last one dropped releases it.
    pub fn share(self) -> SharedGuard {
        SharedGuard { guard: Arc::new(self) }
    }
}

impl Deref for LockGuard {
    type Target = Hold;

    fn deref(&self) -> &Hold {
        &self.held
    }
}

/// A lock that several hold together; from [`LockGuard::share`]. The last one dropped releases it.
#[derive(Debug, Clone)]
#[must_use = "dropping the last one releases the lock"]
pub struct SharedGuard {
    guard: Arc<LockGuard>,
}

impl SharedGuard {
    /// The guard, if this is the last one.
    pub fn into_inner(self) -> Option<LockGuard> {
        Arc::into_inner(self.guard)
    }
}

impl Deref for SharedGuard {
    type Target = Hold;

    fn deref(&self) -> &Hold {
        &self.guard
    }
}
