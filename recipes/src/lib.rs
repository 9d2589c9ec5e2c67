//! Locks, elections, discovery and live configuration on the Quorate client.
