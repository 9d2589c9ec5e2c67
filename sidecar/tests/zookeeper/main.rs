//! The ZooKeeper door as its clients see it: bytes over real sockets, to real members.

mod auth;
mod client;
mod handshake;
mod hostile;
mod multi;
mod operations;
mod read_only;
mod sessions;
mod watches;
mod words;
