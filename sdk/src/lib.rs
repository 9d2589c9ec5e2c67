//! Async client of a Quorate ensemble.
