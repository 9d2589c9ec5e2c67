//! Waits for a condition, with a deadline, and says what it waited for.
//!
//! The condition is looked at again and again: it must be one that stays true (a level), not one that passes by (an
//! edge). Deadlines are for what will never happen, so they are generous: a slow machine must not fail a test.

use std::{fmt, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

/// How long most conditions are waited for.
pub const SOON: Duration = Duration::from_secs(60);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A condition that did not become true in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLate {
    what: String,
    within: Duration,
    last: Option<String>,
}

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:?} in vain until {}", self.within, self.what)?;
        match &self.last {
            Some(last) => write!(f, "; at last: {last}"),
            None => write!(f, "; no look at it ever came to an end"),
        }
    }
}

impl std::error::Error for TooLate {}

/// Looks with `probe` until it is `Ok`. Its errors are the states that were not yet what is wanted.
///
/// `what` completes the sentence "waited until ...". A probe that hangs is given up at the deadline.
pub async fn eventually<T, E, F>(
    what: impl Into<String>,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T, TooLate>
where
    F: Future<Output = Result<T, E>>,
    E: fmt::Display,
{
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => last = Some(format!("{state:#}")),
            Err(_) => return Err(TooLate { what: what.into(), within, last }),
        }
        if Instant::now() >= deadline {
            return Err(TooLate { what: what.into(), within, last });
        }
        sleep(PAUSE).await;
    }
}

/// Looks with `probe` for some time, and fails if it is ever `Ok`.
///
/// `what` completes the sentence "it came to pass that ...". A time that is too short can hide a fault, and never
/// invents one.
pub async fn never<T, E, F>(what: &str, during: Duration, probe: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = Result<T, E>>,
    E: fmt::Display,
{
    match eventually(what, during, probe).await {
        Ok(_) => anyhow::bail!("it came to pass that {what}"),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_becomes_true_is_waited_for() {
        let mut looks = 0;

        let found = eventually("the third look", SOON, || {
            looks += 1;
            std::future::ready(if looks == 3 { Ok(looks) } else { Err(looks) })
        })
        .await;

        assert_eq!(found, Ok(3));
    }

    #[tokio::test]
    async fn what_never_comes_is_reported_with_the_last_state() {
        let late = eventually::<(), _, _>("pigs fly", Duration::from_millis(50), async || Err("they walk")).await;

        let message = late.expect_err("they do not").to_string();
        assert_eq!(message, "waited 50ms in vain until pigs fly; at last: they walk");
    }

    #[tokio::test]
    async fn what_must_never_come_to_pass_is_reported_if_it_does() {
        let brief = Duration::from_millis(50);

        never("they walk", brief, async || Err::<(), _>("they do not")).await.unwrap();
        let error = never("they fly", brief, async || Ok::<_, &str>(())).await.unwrap_err();

        assert_eq!(error.to_string(), "it came to pass that they fly");
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_given_up() {
        let late = eventually::<(), &str, _>("an answer", Duration::from_millis(50), std::future::pending).await;

        let message = late.expect_err("it hangs").to_string();
        assert_eq!(message, "waited 50ms in vain until an answer; no look at it ever came to an end");
    }
}
