//! What must hold of a workload: `p99<20ms`, `ops>1000`, `errors=0`.

use std::{str::FromStr, time::Duration};

use super::measure::Measured;

/// One condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Assertion {
    what: What,
    relation: Relation,
    /// Milliseconds, operations per second, or errors.
    value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Quantile(f64),
    Max,
    OpsPerSecond,
    Errors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    Greater,
    Equal,
}

/// A text that is no condition.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a condition is one of p50, p99, p99.9, max, ops, errors, then <, > or =, then a value: 'p99<20ms', 'ops>1000'"
)]
pub(super) struct NotAnAssertion;

impl FromStr for Assertion {
    type Err = NotAnAssertion;

    fn from_str(text: &str) -> Result<Self, NotAnAssertion> {
        let at = text.find(['<', '>', '=']).ok_or(NotAnAssertion)?;
        let (name, rest) = text.split_at(at);
        let relation = match &rest[..1] {
            "<" => Relation::Less,
            ">" => Relation::Greater,
            _ => Relation::Equal,
        };
        let what = match name.trim() {
            "p50" => What::Quantile(0.5),
            "p99" => What::Quantile(0.99),
            "p99.9" | "p999" => What::Quantile(0.999),
            "max" => What::Max,
            "ops" => What::OpsPerSecond,
            "errors" => What::Errors,
            _ => return Err(NotAnAssertion),
        };
        let value = rest[1..].trim();
        let value = match what {
            What::Quantile(_) | What::Max => {
                let value: Duration = humantime::parse_duration(value).map_err(|_| NotAnAssertion)?;
                value.as_secs_f64() * 1000.0
            }
            What::OpsPerSecond | What::Errors => value.parse().map_err(|_| NotAnAssertion)?,
        };
        Ok(Self { what, relation, value })
    }
}

impl Assertion {
    /// How it is where it does not hold.
    pub(super) fn broken_by(&self, measured: &Measured) -> Option<String> {
        let (name, found) = match self.what {
            What::Quantile(quantile) => (format!("p{} in ms", quantile * 100.0), measured.quantile_ms(quantile)),
            What::Max => ("max in ms".into(), measured.max_ms()),
            What::OpsPerSecond => ("ops/s".into(), measured.ops_per_second()),
            What::Errors => ("errors".into(), measured.errors as f64),
        };
        let (holds, sign) = match self.relation {
            Relation::Less => (found < self.value, '<'),
            Relation::Greater => (found > self.value, '>'),
            Relation::Equal => ((found - self.value).abs() < f64::EPSILON, '='),
        };
        (!holds).then(|| format!("{}: {name} is {found:.2}, not {sign} {}", measured.name(), self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_with_their_units() {
        let read = |text: &str| text.parse::<Assertion>();

        assert_eq!(
            read("p99<20ms").unwrap(),
            Assertion { what: What::Quantile(0.99), relation: Relation::Less, value: 20.0 }
        );
        assert_eq!(read("max < 1s").unwrap().value, 1000.0);
        assert_eq!(read("errors=0").unwrap(), Assertion { what: What::Errors, relation: Relation::Equal, value: 0.0 });
        for nonsense in ["p99", "p98<1ms", "p99<20", "ops>many", "errors", "=0", ""] {
            assert_eq!(read(nonsense), Err(NotAnAssertion), "{nonsense}");
        }
    }

    #[test]
    fn a_condition_that_does_not_hold_says_what_was_found() {
        let mut measured = Measured::new();
        measured.latency(Duration::from_millis(30));
        let broken = |text: &str| text.parse::<Assertion>().unwrap().broken_by(&measured);

        assert_eq!(broken("p99<31ms"), None);
        assert!(broken("p99<20ms").unwrap().contains("p99 in ms is 30.0"), "{:?}", broken("p99<20ms"));
        assert_eq!(broken("errors=0"), None);
        assert!(broken("errors>0").is_some());
    }
}
