//! Locks and elections on the real sidecar, in process: what must hold, and what must hold when things die.

mod cancel;
mod election;
mod exclusion;
mod fence;
mod lock;
mod loss;
mod support;
