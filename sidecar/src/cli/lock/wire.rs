//! What `quorate lock` and its warden say to each other: one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// To the warden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Nobody else can hold the lock before this moment, on the clock that goes on while the machine sleeps.
    HeldUntil(Moment),
    /// Send this signal to the command.
    Signal(i32),
    /// The lock is lost already.
    Lost,
}

/// From the warden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum News {
    /// The command runs, in the process group of this id.
    Started(u32),
    /// It could not be started.
    NotStarted(String),
    /// It was told to end, because the lock could not be counted on any more.
    Terminated,
    /// It was killed.
    Killed,
}

/// A line, its end included.
pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("numbers and text always serialize");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lines() {
        for order in [Order::Signal(15), Order::Lost] {
            let sent = line(&order);

            assert_eq!(sent.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Order>(&sent).unwrap(), order);
        }
        assert_eq!(line(&News::NotStarted("a\nb".into())), b"{\"not_started\":\"a\\nb\"}\n");
    }
}
