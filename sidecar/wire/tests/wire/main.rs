//! The codec as its users see it: bytes written by hand, random records, and bytes that nobody should send.

mod golden;
mod hostile;
mod properties;
mod samples;
