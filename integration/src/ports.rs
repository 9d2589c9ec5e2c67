//! Ports for the doors of a cluster.
//!
//! Not ports the system chose: those come from the range from which it also takes the local ends of connections, so
//! the port of a member that is down could be somebody's local end when the member comes back. These lie below that
//! range. A port is never given twice in one process, and the start differs between processes.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// The range, below Linux' and everybody else's range of local ports.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// An address on this machine that nobody listens on.
///
/// # Panics
/// If there is none.
pub fn free_address() -> SocketAddr {
    // Processes start apart, and walk in the same direction.
    let start = process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("the range ends below 65536");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port from {FIRST} to {} is free", FIRST + COUNT);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_address_is_given_twice() {
        let addresses: HashSet<_> = (0..100).map(|_| free_address()).collect();

        assert_eq!(addresses.len(), 100);
        assert!(addresses.iter().all(|address| (10_000..32_000).contains(&address.port())));
    }
}
