//! Copies nodes, parents before children, a bounded number at a time.

use futures_util::{StreamExt, future, stream::FuturesUnordered};
use quorate::{Client, Error};
use quorate_tree::Limits;
use quorate_wire::{ErrorCode, GetPath, Request, Response, Stat};

use super::{
    access::{self, Carried},
    progress::Progress,
    report::{NotCarried, Report},
    zookeeper::{Unreachable, Zookeeper},
};

/// Nodes under way; with each its data. The rest are names.
const UNDER_WAY_MAX: usize = 64;
/// The server's own nodes, which are not copied.
const OF_THE_SERVER: &str = "/zookeeper";

/// What to do with what is found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) dry_run: bool,
    pub(super) overwrite: bool,
    /// Whether this client says who it is, so that it may be allowed what nobody else is.
    pub(super) known: bool,
}

/// Both ends of a copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'a> {
    pub(super) zookeeper: &'a Zookeeper,
    pub(super) client: &'a Client,
}

/// Why a copy cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error(transparent)]
    Source(#[from] Unreachable),
    #[error(transparent)]
    Target(#[from] Error),
    #[error("ZooKeeper has no node {0}")]
    NoSource(String),
}

/// A parent and how many children it has had in ZooKeeper.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) path: String,
    pub(super) created: u32,
}

/// A node as ZooKeeper shows it.
struct Found {
    data: bytes::Bytes,
    carried: Carried,
    stat: Stat,
    children: Vec<String>,
}

/// A node to copy.
struct Place {
    path: String,
    /// Whether the list of its parent lets nobody create it but users that are known by name.
    guarded: bool,
}

/// Why a node is not carried, or not all of it.
pub(super) struct Obstacle {
    pub(super) reason: String,
    /// Whether somebody else might be permitted.
    pub(super) permission: bool,
}

/// What became of a node.
enum Became {
    Created,
    Equal,
    Replaced,
    Ephemeral,
    Gone,
    /// The node is there, and differs.
    Different(&'static str),
    /// The node is not there.
    NotCarried(Obstacle),
}

struct Done {
    path: String,
    became: Became,
    /// Schemes that its access list lost.
    left_out: Vec<String>,
    children: Vec<String>,
    /// Whether its list guards them.
    guards: bool,
    stat: Stat,
}

/// Copies `base` and all below it. Gives the counters of the parents that are there then.
pub(super) async fn copy(
    ends: Ends<'_>,
    base: &str,
    options: Options,
    report: &mut Report,
    progress: &mut Progress,
) -> Result<Vec<Counter>, CopyError> {
    make_ancestors(ends, base, options, report).await?;
    let mut counters = Vec::new();
    let mut waiting = vec![Place { path: base.to_owned(), guarded: false }];
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < UNDER_WAY_MAX
            && let Some(place) = waiting.pop()
        {
            under_way.push(copy_one(ends, place, options));
        }
        let Some(done) = under_way.next().await else { return Ok(counters) };
        let done = done?;
        if done.path == base && matches!(done.became, Became::Gone) {
            return Err(CopyError::NoSource(done.path));
        }
        if done.is_there() {
            let below = done.children.iter().map(|name| below(&done.path, name));
            let places = below.map(|path| Place { path, guarded: done.guards });
            waiting.extend(places.filter(|place| place.path != OF_THE_SERVER));
            let created = created(done.stat.cversion, done.stat.num_children);
            if created > 0 {
                counters.push(Counter { path: done.path.clone(), created });
            }
        }
        done.tell(report);
        progress.at(report.done());
    }
}

/// Copies the nodes above `base` that are missing here, without what else is below them.
async fn make_ancestors(ends: Ends<'_>, base: &str, options: Options, report: &mut Report) -> Result<(), CopyError> {
    let ends_of_ancestors = base.char_indices().filter(|(at, c)| *c == '/' && *at > 0).map(|(at, _)| at);
    for at in ends_of_ancestors {
        let ancestor = &base[..at];
        if ends.client.exists(ancestor).await?.is_some() {
            continue;
        }
        let done = copy_one(ends, Place { path: ancestor.to_owned(), guarded: false }, options).await?;
        if matches!(done.became, Became::Gone) {
            return Err(CopyError::NoSource(ancestor.to_owned()));
        }
        done.tell(report);
    }
    Ok(())
}

/// How many children a node has had, from what a stat shows: creations and deletions together, in 32 bits.
pub(super) fn created(cversion: i32, num_children: i32) -> u32 {
    cversion.wrapping_add(num_children).cast_unsigned() / 2
}

impl Done {
    fn is_there(&self) -> bool {
        matches!(self.became, Became::Created | Became::Equal | Became::Replaced | Became::Different(_))
    }

    fn tell(self, report: &mut Report) {
        let mut not_carried = |reason, permission| {
            report.not_carried.add(NotCarried { path: self.path.clone(), reason, permission });
        };
        match self.became {
            Became::Different(what) => not_carried(what.into(), false),
            Became::NotCarried(Obstacle { reason, permission }) => {
                not_carried(format!("{reason}; nothing below it either"), permission)
            }
            became => {
                if !self.left_out.is_empty() {
                    let schemes = self.left_out.join(", ");
                    not_carried(
                        format!("of its access list the entries for {schemes}, which are not known here"),
                        false,
                    );
                }
                match became {
                    Became::Created => report.created += 1,
                    Became::Equal => report.equal += 1,
                    Became::Replaced => report.replaced += 1,
                    Became::Gone => report.gone += 1,
                    Became::Ephemeral => report.ephemeral.add(self.path),
                    Became::Different(_) | Became::NotCarried(_) => {}
                }
            }
        }
    }
}

async fn copy_one(ends: Ends<'_>, Place { path, guarded }: Place, options: Options) -> Result<Done, CopyError> {
    let unseen = |path, became| Done {
        path,
        became,
        left_out: Vec::new(),
        children: Vec::new(),
        guards: false,
        stat: Stat::default(),
    };
    let found = match find(ends.zookeeper, &path).await? {
        Ok(found) => found,
        Err(became) => return Ok(unseen(path, became)),
    };
    if found.stat.ephemeral_owner != 0 {
        return Ok(unseen(path, Became::Ephemeral));
    }
    let became = match put(ends.client, &path, &found, guarded, options).await {
        Ok(became) => became,
        Err(error) => Became::NotCarried(refused_here(error)?),
    };
    let guards = access::guards(&found.carried.acl);
    Ok(Done { path, became, left_out: found.carried.left_out, children: found.children, guards, stat: found.stat })
}

/// Reads a node from ZooKeeper.
async fn find(zookeeper: &Zookeeper, path: &str) -> Result<Result<Found, Became>, Unreachable> {
    let get = || GetPath { path: path.to_owned().into(), watch: false };
    let (data, acl, children) = future::try_join3(
        zookeeper.ask(Request::GetData(get())),
        zookeeper.ask(Request::GetAcl { path: path.to_owned().into() }),
        zookeeper.ask(Request::GetChildren2(get())),
    )
    .await?;
    let (data, acl, children) = match (data, acl, children) {
        (Ok(data), Ok(acl), Ok(children)) => (data, acl, children),
        (Err(code), ..) | (_, Err(code), _) | (.., Err(code)) => return Ok(Err(refused_there(code))),
    };
    let (Response::Data { data, stat }, Response::Acl { acl, .. }, Response::NamesStat { names, .. }) =
        (data, acl, children)
    else {
        unreachable!("an answer is decoded as that of its request");
    };
    if access::is_hidden(&acl) && stat.ephemeral_owner == 0 {
        let reason = "ZooKeeper hides its access list from whoever may not change it (--source-auth)".into();
        return Ok(Err(Became::NotCarried(Obstacle { reason, permission: true })));
    }
    // Null data becomes empty data: that is all a client of ours can write.
    Ok(Ok(Found { data: data.unwrap_or_default(), carried: access::carried(&acl), stat, children: names }))
}

fn refused_there(code: ErrorCode) -> Became {
    match code {
        ErrorCode::NO_NODE => Became::Gone,
        ErrorCode::NO_AUTH => Became::NotCarried(Obstacle {
            reason: "ZooKeeper does not let it be read (--source-auth)".into(),
            permission: true,
        }),
        code => {
            Became::NotCarried(Obstacle { reason: format!("ZooKeeper refuses to show it: {code}"), permission: false })
        }
    }
}

/// Creates the node, or finds out how it stands to the one that is there.
async fn put(client: &Client, path: &str, found: &Found, guarded: bool, options: Options) -> Result<Became, Error> {
    if found.data.len() > Limits::DEFAULT.node_bytes_max {
        let (bytes, bytes_max) = (found.data.len(), Limits::DEFAULT.node_bytes_max);
        let reason = format!("its {bytes} bytes of data are more than the {bytes_max} that a node may have here");
        return Ok(Became::NotCarried(Obstacle { reason, permission: false }));
    }
    // The root is always there.
    if !options.dry_run && path != "/" {
        match client.create(path).data(found.data.clone()).acl(found.carried.acl.clone()).await {
            Ok(_) => return Ok(Became::Created),
            Err(Error::NodeExists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let Some(node) = client.get(path).opt().await? else {
        return Ok(match options.dry_run {
            true if guarded && !options.known => Became::NotCarried(not_permitted_here()),
            true => Became::Created,
            false => Became::Different("it comes and goes here while this runs"),
        });
    };
    let there = client.get_acl(path).await?;
    if node.stat.ephemeral_owner.is_some() {
        return Ok(Became::NotCarried(Obstacle { reason: "here it is ephemeral".into(), permission: false }));
    }
    let same_data = node.data == found.data;
    let same_acl = access::is_same(&found.carried.acl, &there.acl);
    if same_data && same_acl {
        return Ok(Became::Equal);
    }
    if !options.overwrite {
        return Ok(Became::Different(match (same_data, same_acl) {
            (false, true) => "here it has other data (--overwrite replaces it)",
            (true, false) => "here it has another access list (--overwrite replaces it)",
            _ => "here it has other data and another access list (--overwrite replaces them)",
        }));
    }
    if !options.dry_run {
        if !same_data {
            client.set(path, found.data.clone()).version(node.stat.version).await?;
        }
        if !same_acl {
            client.set_acl(path, found.carried.acl.clone()).await?;
        }
    }
    Ok(Became::Replaced)
}

/// What concerns one node alone; other errors end the import.
pub(super) fn refused_here(error: Error) -> Result<Obstacle, Error> {
    match error {
        Error::NoAuth { .. } => Ok(not_permitted_here()),
        Error::Txn { source, .. } if !source.is_unknown_outcome() => refused_here(*source),
        Error::NoNode { .. }
        | Error::NodeExists { .. }
        | Error::NotEmpty { .. }
        | Error::BadVersion { .. }
        | Error::NoChildrenForEphemerals { .. }
        | Error::InvalidAcl { .. }
        | Error::InvalidPath { .. }
        | Error::BadArguments { .. }
        | Error::QuotaExceeded { .. }
        | Error::LimitExceeded { .. }
        | Error::RequestTooLarge { .. } => Ok(Obstacle { reason: error.to_string(), permission: false }),
        error => Err(error),
    }
}

fn not_permitted_here() -> Obstacle {
    Obstacle { reason: "not permitted here (--auth of a super user)".into(), permission: true }
}

fn below(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_children_a_node_has_had_are_seen_in_its_stat() {
        assert_eq!(created(-1, 1), 0, "a fresh root, whose one child was never created");
        assert_eq!(created(3, 1), 2, "two created, one deleted");
        assert_eq!(created(2_i32.wrapping_mul(2_000_000_000).wrapping_sub(5), 5), 2_000_000_000);
    }
}
