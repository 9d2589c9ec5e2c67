//! A lock that one holds at a time, in the order in which they came.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
//! # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
//! use quorate_recipes::Mutex;
//!
//! let mutex = Mutex::new(&client, "/locks/order-42")?;
//! let guard = mutex.lock().await?;
//! println!("held, with token {}", guard.token());
//!
//! // Somebody else, somewhere else, does not get it.
//! assert!(Mutex::new(&client, "/locks/order-42")?.try_lock().await?.is_none());
//!
//! // Work that is to stop when the lock is lost.
//! let done = guard.scope(async { "shipped" }).await?;
//! assert_eq!(done, "shipped");
//!
//! guard.release().await?;
//! # client.close(std::time::Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! **On the wire** it is Curator's `InterProcessMutex`, to the letter: each contender has an ephemeral sequential
//! child `_c_<uuid>-lock-NNNNNNNNNN`, the first of them holds, and every other watches the one before it. So it
//! is fair, a release wakes one waiter, and Java and Rust exclude each other. A `LeaderSelector` of Curator on the
//! same path contends too.
//!
//! **What it is not.** It is not reentrant: whoever holds it and asks again waits for itself. [`LockGuard::share`]
//! is for those who want to hold it together.

mod acquire;
mod guard;

pub use acquire::Lock;
pub use guard::{LockGuard, SharedGuard};
use quorate::Client;

pub use crate::line::WaitEvent;
use crate::{
    Participant, Result,
    line::{Label, Line},
};

/// A lock that one holds at a time. Cheap to make and to clone; nothing is sent before it is asked for.
///
/// There is an example at [the module](crate::lock).
#[derive(Debug, Clone)]
pub struct Mutex {
    line: Line,
}

impl Mutex {
    /// The lock at this path. Contenders are its children; it is created when it is not there, as a container,
    /// with what is missing above it.
    ///
    /// # Errors
    /// It is no path.
    pub fn new(client: &Client, path: impl Into<String>) -> Result<Self> {
        Ok(Self { line: Line::new(client, path, Label::LOCK)? })
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.line.path()
    }

    /// Asks for it, and waits: over lost connections, members that die, and lost sessions, until it is granted
    /// or the options say otherwise. Awaited, it gives a [`LockGuard`].
    pub fn lock(&self) -> Lock {
        Lock::new(self.line.clone())
    }

    /// Takes it if it is free, with nobody waiting. It does not enter the line to find out.
    ///
    /// # Cancel safety
    /// Dropped at any point, it leaves nothing behind.
    pub async fn try_lock(&self) -> Result<Option<LockGuard>> {
        self.lock().try_once().await
    }

    /// Who holds it and who waits, in their order, the holder first. As new as everything that was acknowledged
    /// before this was called.
    pub async fn queue(&self) -> Result<Vec<Participant>> {
        self.line.participants().await
    }

    /// Who holds it.
    pub async fn holder(&self) -> Result<Option<Participant>> {
        self.line.first().await
    }

    /// Asks a holder to let go, as Curator's `Revoker` does. It is told by [`Hold::revocation_requested`], if it
    /// cares; nothing is forced. To force it, delete its node.
    ///
    /// [`Hold::revocation_requested`]: crate::Hold::revocation_requested
    pub async fn revoke(&self, holder: &Participant) -> Result<()> {
        self.line.revoke(holder).await
    }
}
