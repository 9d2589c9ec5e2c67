//! Tests over several members: what is promised about an ensemble, shown on ensembles that are killed, cut and wiped.
//!
//! The parts, each a file:
//!
//! - `history` records what clients asked and were told; `model` says what one copy that nobody shares would have
//!   answered; `linearizable` decides whether such a copy explains a history;
//! - `ensemble` is what scenarios are written against: they run on processes (`cluster`) and in this one (`local`);
//! - `cluster` runs real `quorate serve` processes (`process`) on free `ports`, kills, stops, wipes and restarts them, and
//!   asks them how they are (`admin`); `proxy` cuts, slows down and resets the connections between them;
//! - `eventually` waits for a condition with a deadline, and says what it waited for.

pub mod admin;
pub mod cluster;
pub mod ensemble;
pub mod eventually;
pub mod history;
pub mod linearizable;
pub mod local;
pub mod model;
pub mod ports;
pub mod process;
pub mod proxy;
