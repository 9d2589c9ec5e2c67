//! A TCP proxy in front of every door of a cluster, whose links can be cut, slowed down and reset.
//!
//! A link goes from one side to one member and has both directions of the connections that the side opened. All
//! members must be given the same list, so there is one proxy a member and not one a pair: who opened a connection is
//! found out from the system (which process owns its other end). That works on Linux only.
//!
//! A cut link is silent, as a broken network is: connections stay open, nothing arrives, and what was sent arrives
//! after the link is healed if the connection still lives. Each connection has a task, each listener one; all end
//! when the proxy is dropped. A connection holds at most one buffer of each direction.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    select,
    sync::watch,
    task::JoinSet,
    time::sleep,
};

const BUFFER_BYTES: usize = 64 * 1024;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// A member.
    Member(u8),
    /// Anybody else.
    Client,
}

/// How a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Condition {
    cut: bool,
    delay: Duration,
    /// Counts the resets: connections older than the last one are gone.
    resets: u64,
}

type Links = BTreeMap<(Side, u8), watch::Sender<Condition>>;

/// The links, shared with the tasks.
#[derive(Debug, Default)]
struct Network {
    links: Mutex<Links>,
    /// The processes of the members, to tell whose a connection is.
    processes: Mutex<BTreeMap<u8, u32>>,
}

/// A door of a member.
#[derive(Clone, Copy, Debug)]
struct Door {
    member: u8,
    target: SocketAddr,
    for_clients: bool,
}

/// The proxies of one cluster.
#[derive(Debug, Default)]
pub struct Proxies {
    network: Arc<Network>,
    listeners: JoinSet<()>,
}

impl Proxies {
    /// Opens a door that leads to a door of a member. One that is not for clients takes connections only from members.
    pub async fn open(&mut self, address: SocketAddr, member: u8, target: SocketAddr, for_clients: bool) -> Result<()> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("opening a proxy on {address}"))?;
        self.listeners.spawn(listen(listener, Arc::clone(&self.network), Door { member, target, for_clients }));
        Ok(())
    }

    /// Says which process a member is, from now on.
    pub fn know(&self, member: u8, process: u32) {
        self.network.processes.lock().expect("not poisoned").insert(member, process);
    }

    /// Lets nothing through from a side to a member, in either direction.
    pub fn cut(&self, from: Side, to: u8) {
        self.change(from, to, |condition| condition.cut = true);
    }

    /// Lets everything through again, at once.
    pub fn heal(&self, from: Side, to: u8) {
        self.change(from, to, |condition| (condition.cut, condition.delay) = (false, Duration::ZERO));
    }

    /// Holds everything back for some time, in each direction.
    pub fn delay(&self, from: Side, to: u8, delay: Duration) {
        self.change(from, to, |condition| condition.delay = delay);
    }

    /// Ends the connections that are open now, with a reset on both ends.
    pub fn reset(&self, from: Side, to: u8) {
        self.change(from, to, |condition| condition.resets += 1);
    }

    fn change(&self, from: Side, to: u8, change: impl FnOnce(&mut Condition)) {
        self.network.links().entry((from, to)).or_default().send_modify(change);
    }
}

impl Network {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("nothing panics while it holds the links")
    }

    fn link(&self, from: Side, to: u8) -> watch::Receiver<Condition> {
        self.links().entry((from, to)).or_default().subscribe()
    }

    /// Whose the connection is that comes from `peer` to `local`.
    fn side(&self, peer: SocketAddr, local: SocketAddr) -> Side {
        let processes = self.processes.lock().expect("not poisoned").clone();
        let owner = socket_inode(peer, local)
            .and_then(|inode| processes.into_iter().find(|(_, process)| owns_socket(*process, inode)));
        owner.map_or(Side::Client, |(member, _)| Side::Member(member))
    }
}

async fn listen(listener: TcpListener, network: Arc<Network>, door: Door) {
    let mut connections = JoinSet::new();
    let local = listener.local_addr().expect("a bound listener has an address");
    loop {
        select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                let side = network.side(peer, local);
                // A peer that is not known yet would have a link that cannot be cut: it comes again.
                if side == Side::Client && !door.for_clients {
                    continue;
                }
                connections.spawn(carry(stream, door.target, network.link(side, door.member)));
            }
        }
    }
}

/// One connection, until either end closes it or the link is reset.
async fn carry(mut near: TcpStream, target: SocketAddr, mut link: watch::Receiver<Condition>) {
    let born = link.borrow_and_update().resets;
    let mut reset = link.clone();
    let mut far = None;
    let closed = select! {
        biased;
        _ = reset.wait_for(|condition| condition.resets != born) => false,
        carried = exchange(&mut near, &mut far, target, &mut link) => carried.is_ok(),
    };
    if !closed {
        // The ends learn of it at once, and what was on the way is lost.
        for stream in [Some(near), far].into_iter().flatten() {
            let _ = stream.set_zero_linger();
        }
    }
}

async fn exchange(
    near: &mut TcpStream,
    far: &mut Option<TcpStream>,
    target: SocketAddr,
    link: &mut watch::Receiver<Condition>,
) -> io::Result<()> {
    passable(link).await;
    let far = far.insert(TcpStream::connect(target).await?);
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
    tokio::try_join!(pump(near_in, far_out, link.clone()), pump(far_in, near_out, link.clone()))?;
    Ok(())
}

/// Waits until the link lets something through.
async fn passable(link: &mut watch::Receiver<Condition>) {
    // The sender lives as long as the network; without it nothing passes any more.
    if link.wait_for(|condition| !condition.cut).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut link: watch::Receiver<Condition>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        let delay = link.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        // Asked after reading: what arrives while the link is cut waits here.
        passable(&mut link).await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// The inode of the socket at the other end of a connection that came from `peer` to `local`, both on this machine.
fn socket_inode(peer: SocketAddr, local: SocketAddr) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let (peer, local) = (in_table(peer)?, in_table(local)?);
    // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let found = fields.next() == Some(&peer) && fields.next() == Some(&local);
        found.then(|| fields.nth(6)?.parse().ok()).flatten()
    })
}

/// An address as the kernel writes it: the bytes of the host as one number of this machine, in hexadecimal.
fn in_table(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

fn owns_socket(process: u32, inode: u64) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let socket = format!("socket:[{inode}]");
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use quorate_sidecar::testing::free_port;
    use tokio::time::timeout;

    use super::*;
    use crate::eventually::SOON;

    /// How long something that must not come is waited for. Too short a time can only hide a fault, not invent one.
    const QUIET: Duration = Duration::from_millis(50);

    /// A connection from this process through a proxy, both ends of it.
    async fn connected(proxies: &mut Proxies) -> (TcpStream, TcpStream) {
        let door = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).await.unwrap();
        proxies.open(door, 1, behind.local_addr().unwrap(), true).await.unwrap();
        let mut near = TcpStream::connect(door).await.unwrap();
        let (mut far, _) = timeout(SOON, behind.accept()).await.unwrap().unwrap();
        // The far end is accepted before the proxy knows that it is connected.
        near.write_all(b"hello").await.unwrap();
        receive(&mut far, "hello").await;
        (near, far)
    }

    async fn receive(stream: &mut TcpStream, expected: &str) {
        let mut buffer = vec![0; expected.len()];
        timeout(SOON, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(buffer).unwrap(), expected);
    }

    #[tokio::test]
    async fn what_is_sent_arrives_in_both_directions() {
        let mut proxies = Proxies::default();
        let (mut near, mut far) = connected(&mut proxies).await;

        near.write_all(b"there").await.unwrap();
        receive(&mut far, "there").await;
        far.write_all(b"and back").await.unwrap();
        receive(&mut near, "and back").await;

        drop(near);
        assert_eq!(timeout(SOON, far.read(&mut [0])).await.unwrap().unwrap(), 0, "the end arrives too");
    }

    #[tokio::test]
    async fn nothing_passes_a_cut_link_until_it_is_healed() {
        let mut proxies = Proxies::default();
        let (mut near, mut far) = connected(&mut proxies).await;

        proxies.cut(Side::Client, 1);
        near.write_all(b"late").await.unwrap();
        assert!(timeout(QUIET, far.read(&mut [0])).await.is_err(), "it passed");

        proxies.heal(Side::Client, 1);
        receive(&mut far, "late").await;
    }

    #[tokio::test]
    async fn a_reset_ends_both_ends_and_new_connections_pass() {
        let mut proxies = Proxies::default();
        let (mut near, mut far) = connected(&mut proxies).await;

        proxies.reset(Side::Client, 1);

        for stream in [&mut near, &mut far] {
            let error = timeout(SOON, stream.read(&mut [0])).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        connected(&mut proxies).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_of_a_member_is_told_from_others() {
        let mut proxies = Proxies::default();
        proxies.know(7, std::process::id());
        let (mut near, mut far) = connected(&mut proxies).await;

        proxies.cut(Side::Client, 1);
        near.write_all(b"not cut").await.unwrap();
        receive(&mut far, "not cut").await;

        proxies.cut(Side::Member(7), 1);
        near.write_all(b"cut").await.unwrap();
        assert!(timeout(QUIET, far.read(&mut [0])).await.is_err(), "it passed");
    }
}
