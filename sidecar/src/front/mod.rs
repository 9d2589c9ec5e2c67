//! The doors: bytes to domain words and back. They decide nothing.

pub(crate) mod grpc;
