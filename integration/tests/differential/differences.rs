//! What differs from ZooKeeper 3.9 on purpose, with the reason, and how it is kept out of the comparison.
//!
//! ZooKeeper does not even agree with itself in some of these; in the others it does harm.
//!
//! | ZooKeeper | here | kept out by |
//! |---|---|---|
//! | a request that is sent behind a `setACL`, before it was applied, is checked against the old list | against the new one | a burst ends with its first `setACL` |
//! | quotas count only what was applied, also within a multi | all that came before counts | while there is a hard limit, a burst ends with its first write, and a multi has one operation |
//! | quotas whose nodes are not as its own tool makes them fail in an internal error (-5), or count nothing, or what a client wrote there; one inside another takes its part out of the outer's figures | what can be read counts, and every figure is right | set and removed in the tool's order, on subtrees that lie apart |
//! | when a container or a node with a time to live goes, once it may | likewise | servers of their own that look often; one node at a time, and waited for |
//! | `createTTL` with flags 0 to 4 and ttl -1 kills the server, for good | refused (-8) | never asked |
//! | `deleteContainer` (20) of a client passes every access control list | unknown operation | never asked |
//! | `createSession` (-10) of a client is answered in the middle of the stream | unknown operation | never asked |
//! | `create` and `create2` with flag 4 make a persistent node and spoil the digest | they make a container | asked in multis only, where ZooKeeper does so too |
//! | a wrong password closes the connection of the session's owner | it changes nothing | asked only when nobody is connected |
//! | `setWatches` tells of nodes that the session may not read, or whose path has a NUL | it does not | asked only for nodes that may be read |
//! | the order in which the ephemerals of a session go is random | it is that of their paths | sorted |
//! | what the superuser writes to `/zookeeper/config` stays | the leader puts it right again | never set |
//! | what `auth` stands for is kept beside the same entry given by name | each entry is kept once | repetitions are ignored |
//! | the order of names, of identities and of what `auth` stands for is random | names are sorted | sorted |
//! | a session that is closed may be told of its own ephemerals | likewise | ignored |
//! | a ping is answered in its turn | when the leader has vouched for the session; it may overtake | no pings in bursts |
//! | a list with two ids of which one is null cannot be compared: -5 | refused or taken as an empty id | null ids stand alone |
//! | `addWatch`, `checkWatches` and `removeWatches` take a null path; to `setData` and `setACL` it is a bad one | undecodable: -5 | never asked |
//! | a null id of `world` is looked at in its turn; in a multi only if nothing failed before | -5 at once | never asked |
//! | `createTTL` in a multi with a flag that has no ttl is an ordinary create | refused (-8) as alone | never asked |
//! | the empty path reads the root, and its watches never fire | there is no such node (-101) | never asked |
//! | characters beyond the basic plane are echoed as question marks | as they came | never asked where paths are echoed |
//! | a null path, list or id beside something else that is wrong, or in a multi: what is found first is an accident | -5, or a refusal | nulls stand alone |
//! | a vector's count may be any negative number | only -1 | never asked |

use quorate_wire::OpCode;

use crate::ask::Ask;

/// Whether what follows in a burst would be answered in ZooKeeper by chance.
pub(crate) fn ends_burst(ask: &Ask, hard_limits: bool) -> bool {
    ask.op == OpCode::SetAcl.code() || hard_limits && ask.writes()
}
