//! The arena of nodes and the names that lead through it.
//!
//! Everything that changes a node goes through [`Nodes::get_mut`], [`Nodes::insert`] and [`Nodes::remove`], which
//! is where a frozen state keeps what it still needs ([`Images`]). It knows nothing of permissions, sessions or
//! digests: that is the tree's work.

use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::acl_lists::AclLists;
use crate::digest::{Digest, ItemHash, PathHash, node_item};
use crate::images::{Image, Images};
use crate::node::{Node, NodeId};
use crate::usage::Usage;
use crate::{Acl, Stat};

/// Slots are allocated in chunks of this many, so that growing neither copies what is there nor takes twice its
/// memory for a moment.
const CHUNK_SLOTS: usize = 1024;

/// All nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    chunks: Vec<Vec<Slot>>,
    free: Option<NodeId>,
    count: usize,
    pub(crate) acls: AclLists,
    images: Option<Images>,
    /// Where the child tables keep a name depends on this, and nothing else does. It is random, so that nobody can
    /// choose names that fall into one place.
    name_seed: u64,
}

#[derive(Debug)]
enum Slot {
    Taken(Node),
    Vacant { next: Option<NodeId> },
}

impl Nodes {
    pub(crate) const ROOT: NodeId = NodeId(0);

    /// Without any node: the root must be inserted first.
    pub(crate) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: None,
            count: 0,
            acls: AclLists::default(),
            images: None,
            name_seed: RandomState::new().hash_one("names"),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Slots in use or not: every node has an id below this.
    pub(crate) fn slot_count(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * CHUNK_SLOTS + last.len(),
            None => 0,
        }
    }

    pub(crate) fn get(&self, id: NodeId) -> &Node {
        self.try_get(id).expect("ids of nodes that have gone are not kept")
    }

    pub(crate) fn try_get(&self, id: NodeId) -> Option<&Node> {
        match self.chunks.get(id.0 as usize / CHUNK_SLOTS)?.get(id.0 as usize % CHUNK_SLOTS)? {
            Slot::Taken(node) => Some(node),
            Slot::Vacant { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        self.keep_image(id);
        match self.slot_mut(id) {
            Slot::Taken(node) => node,
            Slot::Vacant { .. } => panic!("ids of nodes that have gone are not kept"),
        }
    }

    pub(crate) fn insert(&mut self, node: Node) -> NodeId {
        self.count += 1;
        if let Some(id) = self.free {
            self.keep_image(id);
            let slot = self.slot_mut(id);
            let Slot::Vacant { next } = *slot else { panic!("a slot of the free list is vacant") };
            *slot = Slot::Taken(node);
            self.free = next;
            return id;
        }
        let id = NodeId(u32::try_from(self.slot_count()).expect("memory ends before the numbers do"));
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_SLOTS) {
            self.chunks.push(Vec::with_capacity(CHUNK_SLOTS));
        }
        self.chunks.last_mut().expect("one was pushed if there was none").push(Slot::Taken(node));
        id
    }

    /// Frees the slot. The caller has taken the node out of its parent's table.
    pub(crate) fn remove(&mut self, id: NodeId) {
        self.keep_image(id);
        let vacant = Slot::Vacant { next: self.free };
        if let Slot::Taken(node) = std::mem::replace(self.slot_mut(id), vacant) {
            self.acls.release(node.acl);
            self.count -= 1;
            self.free = Some(id);
        }
    }

    fn slot_mut(&mut self, id: NodeId) -> &mut Slot {
        &mut self.chunks[id.0 as usize / CHUNK_SLOTS][id.0 as usize % CHUNK_SLOTS]
    }

    /// The node at a path. What is not a well-formed path leads nowhere.
    pub(crate) fn find(&self, path: &str) -> Option<NodeId> {
        let below_root = path.strip_prefix('/')?;
        if below_root.is_empty() {
            return Some(Self::ROOT);
        }
        below_root.split('/').try_fold(Self::ROOT, |parent, name| self.child(parent, name))
    }

    pub(crate) fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let directory = self.get(parent).directory.as_ref()?;
        let name = name.as_bytes();
        directory.children.find(self.name_hash(name), |id| self.get(id).name.as_bytes() == name)
    }

    /// Puts a node into its parent's table. The caller knows that the name is not there yet.
    pub(crate) fn link(&mut self, id: NodeId) {
        let node = self.get(id);
        let (parent, name) = (node.parent, node.name.as_bytes());
        let (hash, bytes) = (self.name_hash(name), name.len());
        let directory = self.get_mut(parent).directory_mut();
        directory.children.insert(hash, id);
        directory.name_bytes += bytes;
    }

    /// Puts a node into its parent's table, which will have `count` in all. `false` if there is one of its name.
    pub(crate) fn link_one_of(&mut self, id: NodeId, count: usize) -> bool {
        let node = self.get(id);
        let (parent, name) = (node.parent, node.name.as_bytes());
        let (hash, bytes) = (self.name_hash(name), name.len());
        let has_name = |id| self.get(id).name.as_bytes() == name;
        let directory = self.get(parent).directory.as_ref();
        if directory.is_some_and(|directory| directory.children.find(hash, has_name).is_some()) {
            return false;
        }
        let directory = self.get_mut(parent).directory_mut();
        directory.children.reserve(count);
        directory.children.insert(hash, id);
        directory.name_bytes += bytes;
        true
    }

    /// Takes a node out of its parent's table.
    pub(crate) fn unlink(&mut self, id: NodeId) {
        let node = self.get(id);
        let (parent, name) = (node.parent, node.name.as_bytes());
        let (hash, bytes) = (self.name_hash(name), name.len());
        let directory = self.get_mut(parent).directory_mut();
        directory.children.remove(hash, id);
        directory.name_bytes -= bytes;
    }

    fn name_hash(&self, name: &[u8]) -> u32 {
        xxh3_64_with_seed(name, self.name_seed) as u32
    }

    /// The ancestors of a node from itself up to below the root.
    fn upwards(&self, id: NodeId) -> impl Iterator<Item = &Node> {
        let mut next = id;
        std::iter::from_fn(move || {
            if next == Self::ROOT {
                return None;
            }
            let node = self.get(next);
            next = node.parent;
            Some(node)
        })
    }

    pub(crate) fn path(&self, id: NodeId) -> String {
        if id == Self::ROOT {
            return "/".into();
        }
        self.path_within(id, usize::MAX).expect("no path is longer than memory")
    }

    /// What stands before the names of the children: the path of a node, nothing for the root. `None` if it is longer
    /// than `bytes_max`: it also ends if the node is below itself.
    pub(crate) fn path_within(&self, id: NodeId, bytes_max: usize) -> Option<String> {
        let mut length = 0;
        for node in self.upwards(id) {
            length += node.name.as_bytes().len() + 1;
            if length > bytes_max {
                return None;
            }
        }
        let mut path = vec![b'/'; length];
        let mut end = length;
        for node in self.upwards(id) {
            let name = node.name.as_bytes();
            path[end - name.len()..end].copy_from_slice(name);
            end -= name.len() + 1;
        }
        Some(String::from_utf8(path).expect("names are UTF-8"))
    }

    pub(crate) fn item(&self, id: NodeId, path: PathHash) -> ItemHash {
        let node = self.get(id);
        node_item(path, node, self.acls.hash(node.acl))
    }

    pub(crate) fn stat(&self, id: NodeId) -> Stat {
        let node = self.get(id);
        let num_children = node.child_count() as u32;
        Stat {
            czxid: node.czxid,
            mzxid: node.mzxid,
            pzxid: node.pzxid(),
            ctime_ms: node.ctime_ms,
            mtime_ms: node.mtime_ms,
            version: node.version,
            // Creations plus deletions, which are creations less those that are still there.
            cversion: (node.created() as i32).wrapping_mul(2).wrapping_sub(num_children as i32),
            aversion: node.aversion,
            ephemeral_owner: node.life.owner(),
            data_length: node.data.as_slice().len() as u32,
            num_children,
        }
    }

    pub(crate) fn acl(&self, id: NodeId) -> &Arc<[Acl]> {
        self.acls.get(self.get(id).acl)
    }

    /// All that is below a node, in no order that could be told to anybody.
    pub(crate) fn below(&self, top: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let mut open: Vec<NodeId> = self.children_of(top).collect();
        std::iter::from_fn(move || {
            let id = open.pop()?;
            open.extend(self.children_of(id));
            Some(id)
        })
    }

    fn children_of(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.get(id).directory.iter().flat_map(|directory| directory.children.iter())
    }

    /// Counts what came to or went from below a node and all that are above it. Takes as long as it is deep.
    ///
    /// A frozen state has no usages, so it needs no images of these.
    pub(crate) fn add_below(&mut self, id: NodeId, nodes: i64, bytes: i64) {
        let mut next = id;
        loop {
            let Slot::Taken(node) = self.slot_mut(next) else { panic!("what has a child is there") };
            let directory = node.directory.as_mut().expect("what has or had a child has a directory");
            directory.below = directory.below.after(nodes, bytes);
            if next == Self::ROOT {
                return;
            }
            next = node.parent;
        }
    }

    /// What a node and all below it have.
    pub(crate) fn usage(&self, id: NodeId) -> Usage {
        let node = self.get(id);
        node.below().after(1, node.data.bytes())
    }

    /// Shows every node that can be reached from the root, with its path, parents first. Stops when told to.
    pub(crate) fn walk(&self, mut visit: impl FnMut(NodeId, &str) -> ControlFlow<()>) {
        let mut path = String::new();
        let mut open = vec![(Self::ROOT, 0)];
        while let Some((id, parent_length)) = open.pop() {
            path.truncate(parent_length);
            if id != Self::ROOT {
                path.push('/');
                path.push_str(self.get(id).name.as_str());
            }
            let shown = if id == Self::ROOT { "/" } else { &path };
            if visit(id, shown).is_break() {
                return;
            }
            if let Some(directory) = &self.get(id).directory {
                open.extend(directory.children.iter().map(|child| (child, path.len())));
            }
        }
    }

    /// Adds all of this to a digest that is made from scratch.
    pub(crate) fn add_to(&self, digest: &mut Digest) {
        self.walk(|id, path| {
            digest.add(self.item(id, PathHash::of(path)));
            ControlFlow::Continue(())
        });
    }

    pub(crate) fn freeze(&mut self) {
        self.images = Some(Images::new(self.slot_count()));
    }

    pub(crate) fn thaw(&mut self) {
        self.images = None;
    }

    /// The next slot of the frozen state, `None` at the end; and what is in it, `None` if it is vacant.
    pub(crate) fn next_frozen(&mut self) -> Option<(NodeId, Option<Image>)> {
        let (id, kept) = self.images.as_mut()?.step()?;
        let image = match kept {
            Some(image) => image,
            None => self.try_get(id).map(|node| Image::of(node, &self.acls)),
        };
        Some((id, image))
    }

    fn keep_image(&mut self, id: NodeId) {
        if let Some(images) = &self.images
            && images.needs(id)
        {
            let image = self.try_get(id).map(|node| Image::of(node, &self.acls));
            self.images.as_mut().expect("it was there above").keep(id, image);
        }
    }
}
