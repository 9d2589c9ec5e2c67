//! Ports for members that come and go.
//!
//! Not ports the system chooses: those come from the range from which it also takes the local ends of connections, so
//! the port of a member that is down could be somebody's local end when the member comes back. These lie below that
//! range, in blocks. A process that uses a block holds the first port of it open, so no two processes share one, and a
//! port is given once in the life of a process: while a member is down, nobody else gets its ports.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

use parking_lot::Mutex;

const FIRST: u16 = 10_240;
const BLOCK: u16 = 64;
const BLOCKS: u16 = 350;

/// The ports this process may give out, and the block they are from.
struct Ports {
    /// Never dropped: holding them open is what keeps other processes out.
    held: Vec<TcpListener>,
    rest: Range<u16>,
}

static PORTS: Mutex<Ports> = Mutex::new(Ports { held: Vec::new(), rest: 0..0 });

/// A port of the loopback address that nobody listens on, and that nobody else who asks here is given.
///
/// # Panics
/// No port is free.
#[must_use]
pub fn free_port() -> u16 {
    let mut ports = PORTS.lock();
    loop {
        match ports.rest.next() {
            Some(port) if listen(port).is_some() => return port,
            Some(_) => {}
            None => ports.take_block(),
        }
    }
}

impl Ports {
    fn take_block(&mut self) {
        // Begins anywhere, so that processes that start together seldom try the same blocks.
        let start = rand::random_range(0..BLOCKS);
        for offset in 0..BLOCKS {
            let first = FIRST + (start + offset) % BLOCKS * BLOCK;
            if let Some(listener) = listen(first) {
                self.held.push(listener);
                self.rest = first + 1..first + BLOCK;
                return;
            }
        }
        panic!("no port from {FIRST} to {} is free", FIRST + BLOCK * BLOCKS);
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: HashSet<_> = (0..200).map(|_| free_port()).collect();

        assert_eq!(ports.len(), 200);
        assert!(ports.iter().all(|port| (FIRST..32_768).contains(port)));
    }
}
