//! Tests over several members: what is promised about an ensemble, shown on ensembles that are killed, cut and wiped.
//!
//! The parts, each a file:
//!
//! - `history` records what clients asked and were told; `model` says what one copy that nobody shares would have
//!   answered; `linearizable` decides whether such a copy explains a history, and `order` whether the zxids do;
//! - `load` is clients at work over the SDK, whose answers are kept for these judges; `raw` is a session by
//!   hand, for what the SDK does not let one do;
//! - `ensemble` is what scenarios are written against: they run on processes (`cluster`) and in this one (`local`);
//! - `cluster` runs real `quorate serve` processes (`process`), kills, stops, wipes and restarts them, and
//!   asks them how they are (`admin`); `proxy` cuts, slows down and resets the connections between them;
//! - `peers` finds other people's servers and clients;
//! - `eventually` waits for a condition with a deadline, and says what it waited for.

pub mod admin;
pub mod cluster;
pub mod ensemble;
pub mod eventually;
pub mod history;
pub mod linearizable;
pub mod load;
pub mod local;
pub mod model;
pub mod order;
pub mod peers;
pub mod process;
pub mod proxy;
pub mod raw;
