//! The gRPC door: one bidirectional stream a session, and the operators' questions.

mod convert;
mod session;

pub(crate) use session::SessionService;
