//! The doors: bytes to domain words and back. They decide nothing.

#[allow(dead_code, reason = "the composition root opens it")]
pub(crate) mod admin;
pub(crate) mod grpc;
