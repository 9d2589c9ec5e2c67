//! When to try again, and when to give up.
//!
//! The only module that names the `backoff` crate, which computes the delays; the sleeping and the deadline
//! are ours, on tokio's clock, so that paused-clock tests are exact. No type of `backoff` is public.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use backoff::{ExponentialBackoff, backoff::Backoff};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::error::Error;

/// Growing delays with jitter, and a bound on time or attempts.
///
/// Made by [`RetryPolicy::builder`], which refuses what could never retry.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    initial: Duration,
    max: Duration,
    multiplier: f64,
    jitter: f64,
    max_elapsed: Option<Duration>,
    max_attempts: Option<u32>,
}

impl Default for RetryPolicy {
    /// 50 ms, doubling up to 5 s, full jitter, for at most 60 s.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(50),
            max: Duration::from_secs(5),
            multiplier: 2.0,
            jitter: 1.0,
            max_elapsed: Some(Duration::from_secs(60)),
            max_attempts: None,
        }
    }
}

impl RetryPolicy {
    /// Starts from the default policy.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder { policy: Self::default() }
    }

    /// One attempt and no more.
    pub fn never() -> Self {
        Self { max_attempts: Some(1), ..Self::default() }
    }

    /// The default delays without an end.
    pub fn forever() -> Self {
        Self { max_elapsed: None, ..Self::default() }
    }

    /// For loops that keep something up for the life of a program: 800 ms, doubling up to 30 s, without an end.
    pub fn background() -> Self {
        Self {
            initial: Duration::from_millis(800),
            max: Duration::from_secs(30),
            jitter: 0.5,
            max_elapsed: None,
            ..Self::default()
        }
    }

    /// The same delays, up to this one, without an end.
    pub(crate) fn endless(&self, max: Duration) -> Self {
        let max = self.max.min(max).max(Duration::from_millis(1));
        Self { max, initial: self.initial.min(max), max_elapsed: None, max_attempts: None, ..self.clone() }
    }

    /// How long after the first attempt another may begin, if that is bounded.
    pub fn max_elapsed(&self) -> Option<Duration> {
        self.max_elapsed
    }

    /// The delays of one run of attempts.
    pub fn delays(&self) -> Delays {
        // `backoff` spreads a delay d over d(1-f) to d(1+f). Ours reaches from d(1-jitter) to d, so that `max`
        // is a bound: its middle is d(1-jitter/2).
        let middle = 1.0 - self.jitter / 2.0;
        let mut series = ExponentialBackoff {
            current_interval: self.initial.mul_f64(middle),
            initial_interval: self.initial.mul_f64(middle),
            randomization_factor: (self.jitter / 2.0) / middle,
            multiplier: self.multiplier,
            max_interval: self.max.mul_f64(middle),
            // Its clock is not tokio's, so it must not judge.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        series.reset();
        Delays { series, max: self.max, started: Instant::now(), attempts: 1, policy: self.clone() }
    }
}

/// Builds a [`RetryPolicy`].
#[derive(Debug, Clone)]
#[must_use]
pub struct RetryPolicyBuilder {
    policy: RetryPolicy,
}

impl RetryPolicyBuilder {
    /// The longest first delay.
    pub fn initial(mut self, initial: Duration) -> Self {
        self.policy.initial = initial;
        self
    }

    /// The longest delay of all.
    pub fn max(mut self, max: Duration) -> Self {
        self.policy.max = max;
        self
    }

    /// By how much each delay is longer than the one before.
    pub fn multiplier(mut self, multiplier: f64) -> Self {
        self.policy.multiplier = multiplier;
        self
    }

    /// Which part of a delay is random: 0 for none, 1 for all of it.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.policy.jitter = jitter;
        self
    }

    /// No attempt begins later than this after the first. `None` for no such bound.
    pub fn max_elapsed(mut self, max_elapsed: impl Into<Option<Duration>>) -> Self {
        self.policy.max_elapsed = max_elapsed.into();
        self
    }

    /// At most so many attempts, the first included. `None` for no such bound.
    pub fn max_attempts(mut self, max_attempts: impl Into<Option<u32>>) -> Self {
        self.policy.max_attempts = max_attempts.into();
        self
    }

    /// Refuses delays that shrink, and a time in which not even one retry fits.
    pub fn build(self) -> Result<RetryPolicy, Error> {
        let refuse = |message: &str| Err(Error::Config { message: format!("retry policy: {message}") });
        let policy = self.policy;
        if policy.initial.is_zero() {
            return refuse("initial must not be zero");
        }
        if policy.max < policy.initial {
            return refuse("max must not be less than initial");
        }
        if !(1.0..=100.0).contains(&policy.multiplier) {
            return refuse("multiplier must lie between 1 and 100");
        }
        if !(0.0..=1.0).contains(&policy.jitter) {
            return refuse("jitter must lie between 0 and 1");
        }
        if policy.max_elapsed.is_some_and(|max| max < policy.initial.mul_f64(1.5)) {
            return refuse("max_elapsed must be at least one and a half times initial, or nothing is ever retried");
        }
        if policy.max_attempts == Some(0) {
            return refuse("max_attempts counts the first one, so it must not be zero");
        }
        Ok(policy)
    }
}

/// The delays between the attempts of one call. An iterator would hide that time matters: it ends when the
/// policy says so, not after a fixed number.
#[derive(Debug)]
pub struct Delays {
    series: ExponentialBackoff,
    policy: RetryPolicy,
    max: Duration,
    started: Instant,
    attempts: u32,
}

impl Delays {
    /// How long to wait before the next attempt, or that there is none.
    pub fn next_delay(&mut self) -> Option<Duration> {
        if self.policy.max_attempts.is_some_and(|max| self.attempts >= max) {
            return None;
        }
        let delay = self.series.next_backoff().expect("without a bound of its own it never ends").min(self.max);
        if self.policy.max_elapsed.is_some_and(|max| self.started.elapsed() + delay > max) {
            return None;
        }
        self.attempts = self.attempts.saturating_add(1);
        Some(delay)
    }

    /// Starts again with the first delay, as after a success.
    pub fn reset(&mut self) {
        self.series.reset();
        self.started = Instant::now();
        self.attempts = 1;
    }
}

/// What an error says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It may work later.
    Transient,
    /// It may work after this time and not before, as the server said.
    After(Duration),
    /// It will not work.
    Permanent,
}

impl From<&Error> for Verdict {
    fn from(error: &Error) -> Self {
        if error.is_retryable() { Self::Transient } else { Self::Permanent }
    }
}

/// Repeats `op` until it succeeds, fails for good, or the policy gives up; then the last error is returned.
///
/// # Cancel safety
/// Dropping the future drops the attempt in progress, with what that means for it.
///
/// ```
/// # use quorate::retry::{RetryPolicy, Verdict, retry};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let mut left = 2;
/// let answer = retry(&RetryPolicy::default(), |_: &&str| Verdict::Transient, || {
///     left -= 1;
///     let answer = if left == 0 { Ok(42) } else { Err("busy") };
///     async move { answer }
/// })
/// .await;
/// assert_eq!(answer, Ok(42));
/// # }
/// ```
pub async fn retry<T, E, Fut>(
    policy: &RetryPolicy,
    classify: impl Fn(&E) -> Verdict,
    op: impl FnMut() -> Fut,
) -> Result<T, E>
where
    Fut: Future<Output = Result<T, E>>,
{
    retry_within(policy, None, classify, op).await
}

/// [`retry`], with each further attempt paid for from a budget.
///
/// # Cancel safety
/// That of [`retry`].
pub async fn retry_within<T, E, Fut>(
    policy: &RetryPolicy,
    budget: Option<&RetryBudget>,
    classify: impl Fn(&E) -> Verdict,
    mut op: impl FnMut() -> Fut,
) -> Result<T, E>
where
    Fut: Future<Output = Result<T, E>>,
{
    let mut delays = policy.delays();
    loop {
        let error = match op().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let least = match classify(&error) {
            Verdict::Permanent => return Err(error),
            Verdict::Transient => Duration::ZERO,
            Verdict::After(time) => time,
        };
        let Some(delay) = delays.next_delay() else { return Err(error) };
        if budget.is_some_and(|budget| !budget.withdraw()) {
            return Err(error);
        }
        sleep(delay.max(least)).await;
    }
}

/// What a client may spend on retries: a fifth of its requests and ten a second, so that an outage does not
/// multiply the load. Cheap to clone; clones share one account.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    // Counted apart from the tokens: a request only adds to a counter.
    requests: AtomicU64,
    tokens: Mutex<Tokens>,
}

#[derive(Debug)]
struct Tokens {
    left: f64,
    requests: u64,
    at: Instant,
}

const RETRIES_PER_REQUEST: f64 = 0.2;
const RETRIES_PER_SECOND: f64 = 10.0;
const RETRIES_SAVED_MAX: f64 = 1000.0;

impl Default for RetryBudget {
    /// Starts with ten seconds' worth.
    fn default() -> Self {
        Self {
            account: Arc::new(Account {
                requests: AtomicU64::new(0),
                tokens: Mutex::new(Tokens { left: 10.0 * RETRIES_PER_SECOND, requests: 0, at: Instant::now() }),
            }),
        }
    }
}

impl RetryBudget {
    /// Counts one request.
    pub fn deposit(&self) {
        self.account.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry, or says that none is left.
    pub fn withdraw(&self) -> bool {
        let requests = self.account.requests.load(Ordering::Relaxed);
        let mut tokens = self.account.tokens.lock();
        let now = Instant::now();
        let earned = requests.saturating_sub(tokens.requests) as f64 * RETRIES_PER_REQUEST
            + now.duration_since(tokens.at).as_secs_f64() * RETRIES_PER_SECOND;
        tokens.left = (tokens.left + earned).min(RETRIES_SAVED_MAX);
        (tokens.requests, tokens.at) = (requests, now);
        let granted = tokens.left >= 1.0;
        if granted {
            tokens.left -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicyBuilder {
        RetryPolicy::builder().initial(Duration::from_millis(100)).max(Duration::from_secs(1)).jitter(0.0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_budget_is_kept_on_tokios_clock() {
        let policy = policy().max_elapsed(Duration::from_secs(10)).build().unwrap();
        let started = Instant::now();
        let mut attempts = 0;

        let outcome: Result<(), &str> = retry(
            &policy,
            |_| Verdict::Transient,
            || {
                attempts += 1;
                async { Err("busy") }
            },
        )
        .await;

        assert_eq!(outcome, Err("busy"));
        assert!(started.elapsed() <= Duration::from_secs(10), "{:?}", started.elapsed());
        // 0.1 0.2 0.4 0.8 and then a second each: 1.5 s + 8 s.
        assert_eq!(attempts, 13);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_counted_with_the_first() {
        let policy = policy().max_elapsed(None).max_attempts(3).build().unwrap();
        let mut attempts = 0;

        let outcome: Result<(), ()> = retry(
            &policy,
            |_| Verdict::Transient,
            || {
                attempts += 1;
                async { Err(()) }
            },
        )
        .await;

        assert_eq!(outcome, Err(()));
        assert_eq!(attempts, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_error_ends_it_at_once() {
        let started = Instant::now();

        let outcome: Result<(), &str> =
            retry(&RetryPolicy::default(), |_| Verdict::Permanent, || async { Err("no") }).await;

        assert_eq!(outcome, Err("no"));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_wish_is_honoured() {
        let started = Instant::now();
        let mut left = 2;

        let outcome = retry(
            &RetryPolicy::default(),
            |_| Verdict::After(Duration::from_secs(7)),
            || {
                left -= 1;
                let outcome = if left == 0 { Ok(()) } else { Err(()) };
                async move { outcome }
            },
        )
        .await;

        assert_eq!(outcome, Ok(()));
        assert!(started.elapsed() >= Duration::from_secs(7));
    }

    #[test]
    fn a_budget_shorter_than_one_retry_is_refused() {
        let refused =
            RetryPolicy::builder().initial(Duration::from_millis(500)).max_elapsed(Duration::from_millis(400)).build();

        assert!(matches!(refused, Err(Error::Config { .. })), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_stay_within_their_envelope() {
        let policy = RetryPolicy::builder()
            .initial(Duration::from_millis(100))
            .max(Duration::from_secs(2))
            .jitter(0.5)
            .max_elapsed(None)
            .build()
            .unwrap();

        for _ in 0..100 {
            let mut delays = policy.delays();
            let mut bound = 0.1f64;
            for _ in 0..10 {
                let delay = delays.next_delay().unwrap().as_secs_f64();
                assert!(delay <= bound * 1.001 && delay >= bound * 0.499, "{delay} is outside of {bound}");
                bound = (bound * 2.0).min(2.0);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_budget_ends_retries_and_fills_again() {
        let budget = RetryBudget::default();
        while budget.withdraw() {}

        let mut attempts = 0;
        let outcome: Result<(), ()> = retry_within(
            &RetryPolicy::default(),
            Some(&budget),
            |_| Verdict::Transient,
            || {
                attempts += 1;
                async { Err(()) }
            },
        )
        .await;
        assert_eq!((outcome, attempts), (Err(()), 1));

        for _ in 0..5 {
            budget.deposit();
        }
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
        tokio::time::advance(Duration::from_millis(150)).await;
        assert!(budget.withdraw());
    }
}
