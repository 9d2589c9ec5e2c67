//! Containers and nodes with a time to live, where they are reaped: one at a time, and waited for on both servers.
//! What has a child stays, and so does a container that never had one.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_wire::{ErrorCode, OpCode};
use rand::{Rng as _, seq::IndexedRandom as _};

use super::{KEEPER, SESSIONS, World};
use crate::{
    ask::{Ask, add_watch, create, create_ttl, delete, multi, read},
    servers::pause,
};

/// A node that is reaped goes within this, also on a machine that is busy.
const REAPED_WITHIN: Duration = Duration::from_secs(60);

impl World<'_> {
    pub(super) fn reap(&mut self) -> Result<()> {
        self.guards += 1;
        let top = format!("/reaped-{}", self.guards);
        let [unused, busy, idle] = ["unused", "busy", "idle"].map(|name| format!("{top}/{name}"));
        let child_of = |path: &str| format!("{path}/child");
        self.exchange(KEEPER, vec![create(OpCode::Create, &top, "", 0)])?;
        self.watch_from_all(&[&top, &unused, &busy, &idle])?;

        self.exchange(KEEPER, vec![create(OpCode::CreateContainer, &unused, "", 4)])?;
        let with_time = self.rng.random_bool(0.5);
        for path in [&busy, &idle] {
            let child_flags = self.rng.random_range(0..2);
            let node = if with_time {
                create_ttl(path, self.rng.random_range(1..50))
            } else {
                create(OpCode::CreateContainer, path, "", 4)
            };
            // Both at once: it must not go before it has its child.
            let both = [node, create(OpCode::Create2, &child_of(path), "", child_flags)];
            self.exchange(KEEPER, vec![multi(OpCode::Multi, &both)])?;
        }
        for path in [&idle, &busy] {
            self.watch_from_all(&[&top, path, &child_of(path)])?;
            // From here on it may be gone at any moment: nothing is compared until it is.
            self.converse(KEEPER, vec![delete(&child_of(path))])?;
            self.wait_until_reaped(path)?;
            let stays = if path == &idle { &busy } else { &unused };
            for side in 0..2 {
                let answer = self.answer(KEEPER, side, stays)?;
                ensure!(answer == ErrorCode::OK, "{}: {stays} was reaped: {answer:?}", self.servers[side].name);
            }
            self.counts.reaped += 1;
            // What came of it is compared, and where it was.
            self.exchange(KEEPER, vec![read(OpCode::GetChildren2, &top, false)])?;
        }
        self.exchange(KEEPER, vec![delete(&unused)])?;
        self.exchange(KEEPER, vec![delete(&top)])
    }

    fn wait_until_reaped(&mut self, path: &str) -> Result<()> {
        let deadline = Instant::now() + REAPED_WITHIN;
        for side in 0..2 {
            while self.answer(KEEPER, side, path)? == ErrorCode::OK {
                ensure!(Instant::now() < deadline, "{}: {path} is not reaped", self.servers[side].name);
                pause();
            }
        }
        Ok(())
    }

    /// Whoever is connected may watch one of these, in one way or another.
    fn watch_from_all(&mut self, paths: &[&str]) -> Result<()> {
        for slot in 0..SESSIONS {
            if self.slots[slot].connections.is_some() && self.rng.random_bool(0.7) {
                let ask = self.any_watch(paths);
                self.exchange(slot, vec![ask])?;
            }
        }
        Ok(())
    }

    fn any_watch(&mut self, paths: &[&str]) -> Ask {
        let path = *paths.choose(&mut self.rng).expect("there are some");
        match self.rng.random_range(0..5) {
            0 => read(OpCode::Exists, path, true),
            1 => read(OpCode::GetData, path, true),
            2 => read(OpCode::GetChildren, path, true),
            mode => add_watch(path, mode - 3),
        }
    }
}
