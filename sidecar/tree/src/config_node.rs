//! `/zookeeper/config`: the members, as ZooKeeper's clients read them. The ensemble writes it, and its watches fire.

use crate::node::{Data, NodeId};
use crate::writes::{CONFIG, Work};
use crate::{Change, Tree};

/// What ZooKeeper shows in place of a count.
const VERSION: i32 = -1;

impl Tree {
    /// The lines of `/zookeeper/config` but the last, which says when they were written; empty if nobody wrote them.
    #[must_use]
    pub fn published_config(&self) -> String {
        let data = self.nodes.get(self.config_node()).data.as_slice();
        let text = String::from_utf8_lossy(data);
        text.rsplit_once("\nversion=").map_or_else(|| text.clone().into_owned(), |(servers, _)| servers.to_owned())
    }

    pub(crate) fn publish_config(&mut self, servers: &str, work: &mut Work<'_>) {
        if self.published_config() == servers {
            return;
        }
        let text = match servers {
            "" => String::new(),
            _ => format!("{servers}\nversion={:x}", work.zxid.0),
        };
        let (zxid, stamp_ms) = (work.zxid, work.stamp_ms);
        self.change_node(self.config_node(), CONFIG, |node| {
            node.data = Data::copy_of(Some(text.as_bytes()));
            node.mzxid = zxid;
            node.mtime_ms = stamp_ms;
            node.version = VERSION;
        });
        work.changes.push(Change::DataChanged { path: CONFIG.to_owned() });
    }

    fn config_node(&self) -> NodeId {
        self.nodes.find(CONFIG).expect("it cannot be deleted")
    }
}
