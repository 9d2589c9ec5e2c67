//! The doors: bytes to domain words and back. They decide nothing.

pub(crate) mod admin;
pub(crate) mod grpc;
mod member;
pub(crate) mod zookeeper;

pub(crate) use member::Member;
