//! What is asked: random requests, most of them sensible, over few paths so that they meet each other.

use bytes::BytesMut;
use quorate_wire::{Encoder as _, OpCode, XID_AUTH, XID_PING, XID_SET_WATCHES, frame};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{compare::Known, servers::SUPER};

/// One request as both servers get it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The operation, which may be none.
    pub(crate) op: i32,
    /// `None` takes the next number of the session.
    pub(crate) xid: Option<i32>,
    /// The body for each of the two, which differ only in zxids.
    pub(crate) body: [BytesMut; 2],
    /// For people.
    pub(crate) text: String,
}

impl Ask {
    pub(crate) fn new(op: OpCode, text: impl Into<String>, write: impl Fn(&mut BytesMut)) -> Self {
        let mut body = BytesMut::new();
        write(&mut body);
        Self { op: op.code(), xid: None, body: [body.clone(), body], text: format!("{op:?} {}", text.into()) }
    }

    /// Its frame for one of the two.
    pub(crate) fn frame(&self, side: usize, xid: i32, to: &mut BytesMut) {
        frame(to, |to| {
            to.int(xid);
            to.int(self.op);
            to.extend_from_slice(&self.body[side]);
        });
    }

    /// Whether its answer, when it is not an error, has the zxid of a change of its own.
    pub(crate) fn writes(&self) -> bool {
        matches!(self.op, 1 | 2 | 5 | 7 | 14 | 15 | 19 | 21 | -11)
    }
}

const GOOD: [&str; 18] = [
    "/d",
    "/d/a",
    "/d/b",
    "/d/c",
    "/d/a/x",
    "/d/a/y",
    "/d/b/x",
    "/d/c/e",
    "/d/a/x/deep",
    "/d/a/x/deep/er",
    "/e",
    "/e/a",
    "/d/...",
    "/d/ü b",
    "/d/a..b",
    "/q",
    "/q/a",
    "/q/b",
];
const RESERVED: [&str; 6] =
    ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "/zookeeper/own", "/zookeeper/quota/own"];
const BAD: [&str; 20] = [
    "",
    "/d/",
    "//",
    "/d//a",
    "d/a",
    "d",
    "/d/./a",
    "/d/../a",
    "/d/.",
    "/..",
    "/d/\u{1}",
    "/d/\u{0}",
    "/d/\u{1f}x",
    "/d/\u{7f}",
    "/d/\u{9f}",
    "/d/\u{e000}",
    "/d/\u{f8ff}",
    "/d/\u{fff0}",
    "/d/😀",
    "/d/a/",
];

/// Subtrees that may have a quota, none inside of another.
pub(crate) const QUOTA_SUBTREES: [&str; 3] = ["/q", "/e", "/d/a"];
pub(crate) const QUOTAS: &str = "/zookeeper/quota";
pub(crate) const QUOTA_LIMITS: &str = "zookeeper_limits";
pub(crate) const QUOTA_USAGE: &str = "zookeeper_stats";

type AclEntry = (i32, Option<&'static str>, Option<&'static str>);
const U1: &str = "u1:fpT/y03U+EjItKZOSLGvjnJlyng=";
const U2: &str = "u2:o9NxcCGDPOlcV7JVhmKHOf5ctVE=";
const ENTRIES: [AclEntry; 16] = [
    (31, Some("world"), Some("anyone")),
    (1, Some("world"), Some("anyone")),
    (15, Some("world"), Some("anyone")),
    (0, Some("world"), Some("anyone")),
    (31, Some("digest"), Some(U1)),
    (3, Some("digest"), Some(U2)),
    (16, Some("digest"), Some(U2)),
    (31, Some("auth"), Some("")),
    (31, Some("auth"), None),
    (31, Some("ip"), Some("127.0.0.1")),
    (31, Some("ip"), Some("127.0.0.0/8")),
    (31, Some("ip"), Some("10.1.2.3")),
    (30, Some("ip"), Some("::1")),
    (63, Some("world"), Some("anyone")),
    (-1, Some("digest"), Some(U1)),
    (4, Some("world"), Some("anyone")),
];
const BAD_ENTRIES: [AclEntry; 11] = [
    (31, Some("world"), Some("someone")),
    (31, Some("nobody"), Some("x")),
    (31, Some(""), Some("")),
    (31, Some("digest"), Some("plain")),
    (31, Some("digest"), Some("a:b:c")),
    (31, Some("digest"), Some("")),
    (31, Some("ip"), Some("127.0.0.1/33")),
    (31, Some("ip"), Some("127.0.0.256")),
    (31, Some("ip"), Some("")),
    (31, Some("super"), Some("")),
    (31, Some("ip"), Some("::1/129")),
];

/// What a version is checked by, in transactions only.
const CHECK: i32 = 13;

/// Draws requests.
pub(crate) struct Draw<'a> {
    pub(crate) rng: &'a mut StdRng,
    /// What the answers have shown so far.
    pub(crate) known: &'a Known,
    /// Nothing else is in flight: see the differences for what that allows.
    pub(crate) alone: bool,
    /// Nobody reaps, so that there may be containers at random.
    pub(crate) containers: bool,
    /// A quota refuses what is too much: see the differences for what that forbids.
    pub(crate) hard_limits: bool,
}

impl Draw<'_> {
    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    pub(crate) fn path(&mut self) -> String {
        if self.hard_limits && self.one_in(3) {
            let subtree = *QUOTA_SUBTREES.choose(self.rng).unwrap();
            return format!("{subtree}{}", ["", "/a", "/b", "/x"].choose(self.rng).unwrap());
        }
        match self.rng.random_range(0..100) {
            0..70 => (*GOOD.choose(self.rng).unwrap()).to_owned(),
            70..85 if !self.known.recent.is_empty() => {
                let recent: Vec<_> = self.known.recent.iter().collect();
                (*recent.choose(self.rng).unwrap()).clone()
            }
            85..93 => (*RESERVED.choose(self.rng).unwrap()).to_owned(),
            93..97 => (*BAD.choose(self.rng).unwrap()).to_owned(),
            _ => "/d/a".to_owned(),
        }
    }

    /// Null once in a while.
    fn maybe_path(&mut self) -> Option<String> {
        if self.alone && self.one_in(150) { None } else { Some(self.path()) }
    }

    /// Not the empty path, by which ZooKeeper reads the root, nor what it would echo in letters of its own.
    fn read_path(&mut self) -> Option<String> {
        if self.one_in(25) {
            let name = *[QUOTA_LIMITS, QUOTA_USAGE].choose(self.rng).unwrap();
            return Some(format!("{QUOTAS}{}/{name}", QUOTA_SUBTREES.choose(self.rng).unwrap()));
        }
        self.maybe_path().filter(|path| !path.is_empty() && !path.contains('😀'))
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        match self.rng.random_range(0..20) {
            0 => None,
            1..4 => Some(Vec::new()),
            4 => Some(vec![b'x'; 3000]),
            n => Some(vec![b'a' + n; usize::from(n)]),
        }
    }

    fn acl(&mut self) -> Option<Vec<AclEntry>> {
        match self.rng.random_range(0..100) {
            0..75 => Some(vec![ENTRIES[0]]),
            75..78 => Some(Vec::new()),
            78 if self.alone => None,
            78..83 => {
                let (permissions, scheme, id) = *BAD_ENTRIES.choose(self.rng).unwrap();
                Some(vec![ENTRIES[0], (permissions, scheme, id.or(Some("")))])
            }
            83..86 if self.alone => Some(vec![*BAD_ENTRIES.choose(self.rng).unwrap()]),
            _ => {
                let count = self.rng.random_range(1..4);
                let mut entries: Vec<_> = (0..count).map(|_| *ENTRIES.choose(self.rng).unwrap()).collect();
                if count > 1 || !self.alone {
                    // ZooKeeper cannot compare a null with another.
                    entries.iter_mut().for_each(|(_, _, id)| *id = id.or(Some("")));
                }
                Some(entries)
            }
        }
    }

    fn version(&mut self, path: &str, of_acl: bool) -> i32 {
        let known = self.known.versions.get(path).map_or(0, |(data, acl)| if of_acl { *acl } else { *data });
        match self.rng.random_range(0..10) {
            0..5 => -1,
            5..8 => known,
            8 => known + 1,
            _ => *[0, 1, -2, i32::MAX, i32::MIN].choose(self.rng).unwrap(),
        }
    }

    fn watch(&mut self) -> bool {
        self.rng.random_range(0..3) > 0
    }

    /// A request that may be alone or in a burst.
    pub(crate) fn request(&mut self) -> Ask {
        match self.rng.random_range(0..100) {
            0..22 => self.create(),
            22..32 => self.delete(),
            32..41 => self.set_data(),
            41..45 => self.set_acl(),
            45..53 => self.get(OpCode::Exists),
            53..60 => self.get(OpCode::GetData),
            60..65 => self.get(OpCode::GetChildren),
            65..70 => self.get(OpCode::GetChildren2),
            70..73 => self.one_path(OpCode::GetAcl),
            73..75 => self.one_path(OpCode::GetAllChildrenNumber),
            75..77 => self.one_path(OpCode::GetEphemerals),
            77 => self.one_path(OpCode::Sync),
            78..85 => self.multi(),
            85..87 => self.multi_read(),
            87..92 => self.add_watch(),
            92..95 => self.watches(OpCode::RemoveWatches),
            95 => self.watches(OpCode::CheckWatches),
            96..98 => Ask::new(OpCode::WhoAmI, "", |_| {}),
            98 if self.alone => Ask { xid: Some(XID_PING), ..Ask::new(OpCode::Ping, "", |_| {}) },
            _ => Ask::new(OpCode::Reconfig, "joining 9", |to| {
                to.text("server.9=h:1:2;3");
                to.buffer(None);
                to.buffer(None);
                to.long(-1);
            }),
        }
    }

    /// A request that is better alone, for it ends the connection or its answer may overtake others.
    pub(crate) fn special(&mut self) -> Ask {
        match self.rng.random_range(0..40) {
            0..14 => self.auth(),
            14..30 => self.malformed(),
            30..34 => Ask::new(OpCode::Sasl, "", |to| to.buffer(Some(b"token"))),
            34..38 => Ask::new(OpCode::CloseSession, "", |_| {}),
            _ => {
                // What is internal to ZooKeeper (20, -10) is left out: see the differences.
                let op = *[0, 10, 13, 999, -1, 23, 108, i32::MAX, i32::MIN].choose(self.rng).unwrap();
                Ask { op, text: format!("operation {op}"), ..Ask::new(OpCode::Ping, "", |_| {}) }
            }
        }
    }

    pub(crate) fn auth(&mut self) -> Ask {
        let (scheme, credential) = *[
            ("digest", "u1:p1"),
            ("digest", "u1:p1"),
            ("digest", "u2:p2"),
            ("digest", "u2:wrong"),
            ("digest", "no colon"),
            ("digest", ""),
            ("digest", SUPER),
            ("ip", ""),
            ("ip", "10.1.2.3"),
            ("nobody", "x"),
            ("world", "anyone"),
            ("auth", ""),
            ("super", ""),
            ("", ""),
        ]
        .choose(self.rng)
        .unwrap();
        authenticate(scheme, credential)
    }

    fn create(&mut self) -> Ask {
        let op = self.create_op();
        self.create_by(op)
    }

    fn create_op(&mut self) -> OpCode {
        match self.rng.random_range(0..6) {
            0 => OpCode::Create,
            1 if self.containers => OpCode::CreateContainer,
            2 => OpCode::CreateTtl,
            _ => OpCode::Create2,
        }
    }

    fn create_by(&mut self, op: OpCode) -> Ask {
        let (text, body) = self.create_body(op);
        Ask::new(op, text, |to| to.extend_from_slice(&body))
    }

    fn create_body(&mut self, op: OpCode) -> (String, BytesMut) {
        let flags = match op {
            OpCode::CreateContainer if !self.one_in(10) => 4,
            OpCode::CreateTtl if !self.alone || !self.one_in(6) => self.rng.random_range(5..7),
            _ if self.one_in(30) => *[-1, 7, 8, 100, 5, 6, i32::MIN].choose(self.rng).unwrap(),
            // Flag 4 of the plain operations is left out: see the differences.
            OpCode::CreateContainer | OpCode::CreateTtl => self.rng.random_range(0..2) * 4,
            _ => self.rng.random_range(0..4),
        };
        // Null and more that is wrong: what is found first is ZooKeeper's own business.
        let plain = matches!(flags, 0..4) && op != OpCode::CreateTtl;
        let mut path = if plain { self.maybe_path() } else { Some(self.path()) };
        if matches!(flags, 2 | 3 | 6) && self.one_in(3) {
            path = path.map(|path| format!("{path}/s-"));
        }
        let ttl = match self.rng.random_range(0..12) {
            0 => 0,
            // -1 with other flags kills ZooKeeper for good.
            1 if flags >= 5 => -1,
            2 => 1 << 40,
            3 => (1 << 40) - 1,
            4 => i64::MAX,
            _ => 100_000_000,
        };
        let data = self.data();
        let acl = if plain { self.acl() } else { self.acl().filter(|acl| acl.iter().all(|(_, _, id)| id.is_some())) };
        let mut body = BytesMut::new();
        body.buffer(path.as_deref().map(str::as_bytes));
        body.buffer(data.as_deref());
        write_acl(acl.as_deref(), &mut body);
        body.int(flags);
        let mut text = format!("{path:?} flags {flags} data {} acl {acl:?}", length(data.as_deref()));
        if op == OpCode::CreateTtl {
            body.long(ttl);
            text += &format!(" ttl {ttl}");
        }
        (text, body)
    }

    fn delete(&mut self) -> Ask {
        let (path, version) = self.path_and_version(false);
        Ask::new(OpCode::Delete, format!("{path:?} version {version}"), |to| {
            to.buffer(path.as_deref().map(str::as_bytes));
            to.int(version);
        })
    }

    fn path_and_version(&mut self, of_acl: bool) -> (Option<String>, i32) {
        let path = self.maybe_path();
        let version = self.version(path.as_deref().unwrap_or_default(), of_acl);
        (path, version)
    }

    fn set_data(&mut self) -> Ask {
        let (path, version) = self.path_and_version(false);
        let path = path.filter(|path| path != "/zookeeper/config").unwrap_or_default();
        let data = self.data();
        let text = format!("{path:?} data {} version {version}", length(data.as_deref()));
        Ask::new(OpCode::SetData, text, |to| {
            to.text(&path);
            to.buffer(data.as_deref());
            to.int(version);
        })
    }

    fn set_acl(&mut self) -> Ask {
        let (path, version) = self.path_and_version(true);
        let path = path.unwrap_or_default();
        let acl = self.acl();
        Ask::new(OpCode::SetAcl, format!("{path:?} acl {acl:?} version {version}"), |to| {
            to.text(&path);
            write_acl(acl.as_deref(), to);
            to.int(version);
        })
    }

    fn get(&mut self, op: OpCode) -> Ask {
        let (path, watch) = (self.read_path(), self.watch());
        Ask::new(op, format!("{path:?} watch {watch}"), |to| {
            to.buffer(path.as_deref().map(str::as_bytes));
            to.boolean(watch);
        })
    }

    fn one_path(&mut self, op: OpCode) -> Ask {
        let mut path = self.read_path();
        if op == OpCode::GetEphemerals && self.one_in(3) {
            path = [None, Some(String::new()), Some(" ".into()), Some("/".into()), Some("/d/a".into())]
                .choose(self.rng)
                .unwrap()
                .clone();
        }
        Ask::new(op, format!("{path:?}"), |to| to.buffer(path.as_deref().map(str::as_bytes)))
    }

    fn add_watch(&mut self) -> Ask {
        let path = self.path();
        let mode = if self.one_in(20) { *[2, -1, 5].choose(self.rng).unwrap() } else { self.rng.random_range(0..2) };
        Ask::new(OpCode::AddWatch, format!("{path:?} mode {mode}"), |to| {
            to.text(&path);
            to.int(mode);
        })
    }

    fn watches(&mut self, op: OpCode) -> Ask {
        let path = self.path();
        let kind = if self.one_in(20) { *[0, 6, -1].choose(self.rng).unwrap() } else { self.rng.random_range(1..6) };
        Ask::new(op, format!("{path:?} kind {kind}"), |to| {
            to.text(&path);
            to.int(kind);
        })
    }

    fn multi(&mut self) -> Ask {
        let alone = std::mem::replace(&mut self.alone, false);
        let count = self.rng.random_range(0..if self.hard_limits { 2 } else { 6 });
        let asks: Vec<_> = (0..count)
            .map(|_| match self.rng.random_range(0..40) {
                0..18 => self.create(),
                18..24 => self.delete(),
                24..33 => self.set_data(),
                33..39 => {
                    // It looks like a delete.
                    let ask = self.delete();
                    Ask { op: CHECK, text: ask.text.replacen("Delete", "Check", 1), ..ask }
                }
                _ if self.one_in(2) => self.set_acl(),
                _ => self.get(OpCode::GetData),
            })
            .collect();
        self.alone = alone;
        multi(OpCode::Multi, &asks)
    }

    fn multi_read(&mut self) -> Ask {
        let asks: Vec<_> = (0..self.rng.random_range(0..5))
            .map(|_| if self.one_in(2) { self.get(OpCode::GetData) } else { self.get(OpCode::GetChildren) })
            .collect();
        multi(OpCode::MultiRead, &asks)
    }

    /// The watches of a client that comes back: the lists of the newer operation, or of the older one.
    pub(crate) fn watch_lists(&mut self) -> Vec<Vec<String>> {
        let lists = if self.one_in(2) { 5 } else { 3 };
        (0..lists).map(|_| (0..self.rng.random_range(0..4)).filter_map(|_| self.read_path()).collect()).collect()
    }

    pub(crate) fn set_watches(&mut self, lists: &[Vec<String>]) -> Ask {
        let op = if lists.len() == 5 { OpCode::SetWatches2 } else { OpCode::SetWatches };
        let since = *self.known.changes.choose(self.rng).unwrap_or(&[0, 0]);
        let mut ask = Ask::new(op, format!("since {since:?} {lists:?}"), |_| {});
        for (body, since) in ask.body.iter_mut().zip(since) {
            body.long(since);
            for list in lists {
                body.count(list.len());
                list.iter().for_each(|path| body.text(path));
            }
        }
        Ask { xid: Some(XID_SET_WATCHES), ..ask }
    }

    /// Something that was a request once.
    fn malformed(&mut self) -> Ask {
        let mut ask = self.request();
        let body = ask.body[0].clone();
        let body = match self.rng.random_range(0..5) {
            0..2 if !body.is_empty() => {
                let keep = self.rng.random_range(0..body.len());
                ask.text += &format!(", cut to {keep} bytes");
                body[..keep].into()
            }
            2 if body.len() > 4 => {
                let length: i32 = *[-2, i32::MIN, i32::MAX, 3_000_000].choose(self.rng).unwrap();
                ask.text += &format!(", its first length is {length}");
                [&length.to_be_bytes(), &body[4..]].concat()
            }
            3 if body.len() > 5 && matches!(ask.op, 3 | 4 | 8 | 12) => {
                ask.text += ", its boolean is 7";
                [&body[..body.len() - 1], &[7]].concat()
            }
            _ => {
                ask.text += ", with bytes behind it";
                [&body[..], b"behind"].concat()
            }
        };
        ask.body = [body[..].into(), body[..].into()];
        ask
    }
}

pub(crate) fn authenticate(scheme: &str, credential: &str) -> Ask {
    let ask = Ask::new(OpCode::Auth, format!("{scheme} {credential:?}"), |to| {
        to.int(0);
        to.text(scheme);
        to.buffer(Some(credential.as_bytes()));
    });
    Ask { xid: Some(XID_AUTH), ..ask }
}

/// Several as one: a transaction, or some reads.
pub(crate) fn multi(op: OpCode, asks: &[Ask]) -> Ask {
    let header = |op: i32, done: bool, to: &mut BytesMut| {
        to.int(op);
        to.boolean(done);
        to.int(-1);
    };
    let texts: Vec<_> = asks.iter().map(|ask| &ask.text).collect();
    Ask::new(op, format!("{texts:#?}"), |to| {
        for ask in asks {
            header(ask.op, false, to);
            to.extend_from_slice(&ask.body[0]);
        }
        header(-1, true, to);
    })
}

/// A read of one node.
pub(crate) fn read(op: OpCode, path: &str, watch: bool) -> Ask {
    Ask::new(op, format!("{path} watch {watch}"), |to| {
        to.text(path);
        to.boolean(watch);
    })
}

pub(crate) fn add_watch(path: &str, mode: i32) -> Ask {
    Ask::new(OpCode::AddWatch, format!("{path} mode {mode}"), |to| {
        to.text(path);
        to.int(mode);
    })
}

/// A node that everybody may use, of a kind that the operation makes.
pub(crate) fn create(op: OpCode, path: &str, data: &str, flags: i32) -> Ask {
    Ask::new(op, format!("{path} {data:?} flags {flags}"), |to| {
        to.text(path);
        to.buffer(Some(data.as_bytes()));
        write_acl(Some(&ENTRIES[..1]), to);
        to.int(flags);
    })
}

/// A node that everybody may use, and that goes after some time.
pub(crate) fn create_ttl(path: &str, ttl_ms: i64) -> Ask {
    let mut ask = create(OpCode::CreateTtl, path, "", 5);
    ask.body.iter_mut().for_each(|body| body.long(ttl_ms));
    Ask { text: format!("{} ttl {ttl_ms}", ask.text), ..ask }
}

pub(crate) fn delete(path: &str) -> Ask {
    Ask::new(OpCode::Delete, path, |to| {
        to.text(path);
        to.int(-1);
    })
}

pub(crate) fn set_data(path: &str, data: &str) -> Ask {
    Ask::new(OpCode::SetData, format!("{path} {data:?}"), |to| {
        to.text(path);
        to.buffer(Some(data.as_bytes()));
        to.int(-1);
    })
}

fn write_acl(acl: Option<&[AclEntry]>, to: &mut BytesMut) {
    let Some(acl) = acl else { return to.int(-1) };
    to.count(acl.len());
    for (permissions, scheme, id) in acl {
        to.int(*permissions);
        to.buffer(scheme.map(str::as_bytes));
        to.buffer(id.map(str::as_bytes));
    }
}

fn length(data: Option<&[u8]>) -> String {
    data.map_or("null".into(), |data| format!("{} bytes", data.len()))
}
