//! Why a zoo.cfg cannot be used: one sentence, and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{properties::BadEscape, server_line::NotAServerLine};
use crate::config::{Address, NotADigest};

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {problem}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub(crate) struct ZooCfgError {
    /// The file, or the one that its `dynamicConfigFile` names.
    path: PathBuf,
    /// Counted from 1.
    line: Option<usize>,
    problem: Problem,
}

impl ZooCfgError {
    pub(super) fn new(path: &Path, line: impl Into<Option<usize>>, problem: impl Into<Problem>) -> Self {
        Self { path: path.into(), line: line.into(), problem: problem.into() }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Escape(#[from] BadEscape),
    #[error("{key}={value} is not {wanted}")]
    Value { key: String, value: String, wanted: &'static str },
    #[error(
        "{key} stands there twice, first in line {first}, with different values: ZooKeeper takes the last one; leave one"
    )]
    Twice { key: String, first: usize },
    #[error("there is no key `{key}`; did you mean `{meant}`?")]
    Misspelt { key: String, meant: String },
    #[error(
        "{key}={value} demands a protection that Quorate does not have yet, and a member must not start without what it \
         was promised; take the key out if the network is trusted"
    )]
    Protection { key: String, value: String },
    #[error("{key}: {source}")]
    Server { key: String, source: NotAServerLine },
    #[error("`{key}`: member ids go from 1 to 254; give the server such a number here and in its myid")]
    ServerId { key: String },
    #[error("server.{one} and server.{other} are both {address}: give each server its own address")]
    SharedAddress { one: u8, other: u8, address: Address },
    #[error(
        "server.{id} is {address}, where the other servers cannot find it; name its host, and set \
         quorumListenOnAllIPs=true if it is to listen on all addresses"
    )]
    Unspecified { id: u8, address: Address },
    #[error("{key} may not stand beside dynamicConfigFile: move it into {}", dynamic.display())]
    BesideDynamic { key: String, dynamic: PathBuf },
    #[error("{key} has no place in a file that dynamicConfigFile names: move it into {}", file.display())]
    NotDynamic { key: String, file: PathBuf },
    #[error(
        "there are no server lines, and this server is not to stand alone: add server.N=HOST:PEERPORT:ELECTIONPORT"
    )]
    NoServers,
    #[error("all its servers are observers: an ensemble needs participants, who vote")]
    OnlyObservers,
    #[error(
        "server.{id}, which this is by its myid, is an observer, and Quorate has none yet; make it a participant, with \
         an odd number of them, or do without it"
    )]
    Observer { id: u8 },
    #[error(
        "dataDir is missing: name the directory that holds myid and will hold the data, or give --data-dir and --id"
    )]
    NoDataDir,
    #[error(
        "{} cannot be read ({source}), so this member does not know which server of {servers} it is; write its number \
         there, or give --id",
        myid.display()
    )]
    NoMyId { myid: PathBuf, servers: String, source: io::Error },
    #[error("{} says `{text}`, which is no number from 1 to 254; write this server's number there, or give --id", myid.display())]
    BadMyId { myid: PathBuf, text: String },
    #[error("this is server {id}, and the servers are {servers}; correct myid or --id, or add server.{id}")]
    NotInList { id: u8, servers: String },
    #[error("clientPort says {port}, and server.{id} says {line}: leave one of them")]
    ClientPort { port: String, id: u8, line: String },
    #[error("clientPortAddress needs a clientPort")]
    ClientPortMissing,
    #[error("{key}={given} is not from {min} to {max}")]
    OutOfRange { key: String, given: u64, min: u64, max: u64 },
    #[error("DigestAuthenticationProvider.superDigest: {0}")]
    SuperDigest(#[from] NotADigest),
    #[error(
        "DigestAuthenticationProvider.digestAlg={algorithm}: Quorate knows SHA1 alone, so that no digest in an access \
         list would match; access lists have to be made anew with SHA1"
    )]
    Digest { algorithm: String },
    #[error(
        "{} holds the data of a ZooKeeper server (version-2), which Quorate neither reads nor touches; name an empty \
         dataDir, or give --data-dir, and copy the nodes from the running ZooKeeper with `quorate import \
         zookeeper://HOST:PORT/`",
        dir.display()
    )]
    Foreign { dir: PathBuf },
    #[error("{0}")]
    Own(String),
}
