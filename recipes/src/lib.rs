//! What applications coordinate with: locks, elections, discovery and live configuration, on the Quorate client.
//!
//! Everything here is built on nothing but what is public in [`quorate`]. Names, modes and data of the nodes are
//! those of Curator and Spring Cloud Zookeeper, so that programs in Java and Rust meet on the same paths: they
//! contend for the same locks and find each other's services.
//!
//! One module a recipe. What most programs need is re-exported here.

#![deny(missing_docs)]
