//! The gRPC contracts of Quorate, generated from `proto/`.
//!
//! [`v1`] is what clients speak: the session stream and the operators' questions. `peer` (feature `peer`)
//! is what members speak among themselves and what stands in their logs. The `.proto` files carry the
//! meaning; they are written so that another client can be made from them alone.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

/// What clients speak.
pub mod v1 {
    tonic::include_proto!("quorate.v1");

    /// The encoded descriptors of this package, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quorate_v1.bin"));
}

/// What members speak, and the payload of their logs.
#[cfg(feature = "peer")]
pub mod peer {
    tonic::include_proto!("quorate.peer.v1");
}
