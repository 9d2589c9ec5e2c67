//! The gRPC door: one bidirectional stream a session, and the operators' questions.

mod admin;
mod convert;
mod session;

pub(crate) use admin::AdminService;
pub(crate) use session::SessionService;
