//! What a scenario needs of an ensemble, whether its members are processes or live in this one.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    admin::{self, Status},
    eventually::{SOON, eventually},
};

/// Several members, and what may happen to each. Members are numbered from 1.
#[allow(async_fn_in_trait, reason = "a scenario is generic over its ensemble and runs on one task")]
pub trait Ensemble {
    /// The members, whether they run or not.
    fn ids(&self) -> Vec<u8>;

    /// The members that run, paused ones included.
    fn running(&self) -> Vec<u8>;

    /// Where clients find a member.
    fn endpoint(&self, id: u8) -> String;

    /// The operators' door of a member.
    fn admin_door(&self, id: u8) -> SocketAddr;

    /// The session clock: sessions last from 2 to 20 ticks.
    fn tick(&self) -> Duration;

    /// A silent leader is replaced within this.
    fn election_timeout(&self) -> Duration;

    /// Starts a member that does not run. May return before it serves.
    async fn start(&mut self, id: u8) -> Result<()>;

    /// Ends a member where it stands: no flush, no hand-over, no goodbye.
    async fn kill(&mut self, id: u8) -> Result<()>;

    /// Ends a member in order, as SIGTERM does, and waits until it has ended.
    async fn stop(&mut self, id: u8) -> Result<()>;

    /// Takes everything a member that does not run has on disk.
    async fn wipe(&mut self, id: u8) -> Result<()>;

    /// Stops a member as a suspended machine would stop.
    async fn pause(&mut self, id: u8) -> Result<()>;

    /// Lets a paused member go on.
    async fn resume(&mut self, id: u8) -> Result<()>;

    /// Cuts a member off from the other members. Clients still reach it.
    async fn cut_off(&mut self, id: u8) -> Result<()>;

    /// Ends a cut.
    async fn heal(&mut self, id: u8) -> Result<()>;

    /// Fails if a member has ended although nobody ended it.
    fn check_alive(&mut self, id: u8) -> Result<()>;

    /// Where clients find all members.
    fn endpoints(&self) -> Vec<String> {
        self.ids().into_iter().map(|id| self.endpoint(id)).collect()
    }

    /// Starts all members that do not run.
    async fn start_all(&mut self) -> Result<()> {
        for id in self.ids() {
            if !self.running().contains(&id) {
                self.start(id).await?;
            }
        }
        Ok(())
    }

    /// Kills all members that run, one right after the other.
    async fn kill_all(&mut self) -> Result<()> {
        for id in self.running() {
            self.kill(id).await?;
        }
        Ok(())
    }

    /// Kills a member, starts it again and waits until it serves.
    async fn crash(&mut self, id: u8) -> Result<()> {
        self.kill(id).await?;
        self.start(id).await?;
        self.ready(id).await
    }

    /// Where a member stands.
    async fn status(&self, id: u8) -> Result<Status> {
        admin::status(self.admin_door(id)).await
    }

    /// Waits until a member answers operators, whether it serves clients or not.
    async fn started(&mut self, id: u8) -> Result<()> {
        let admin = self.admin_door(id);
        let started = eventually(format!("member {id} has started"), SOON, || {
            let alive = self.check_alive(id);
            async move {
                if alive.is_err() {
                    return Ok(alive);
                }
                admin::get(admin, "/livez").await.map(|_| Ok(()))
            }
        });
        started.await?
    }

    /// Waits until a member serves clients.
    async fn ready(&mut self, id: u8) -> Result<()> {
        let admin = self.admin_door(id);
        let ready = eventually(format!("member {id} is ready"), SOON, || {
            let alive = self.check_alive(id);
            async move {
                if alive.is_err() {
                    return Ok(alive);
                }
                match admin::get(admin, "/readyz").await? {
                    (200, _) => Ok(Ok(())),
                    (code, body) => bail!("{code} {body}"),
                }
            }
        });
        ready.await?
    }

    /// Waits until all members that run serve clients.
    async fn all_ready(&mut self) -> Result<()> {
        for id in self.running() {
            self.ready(id).await?;
        }
        Ok(())
    }

    /// Waits until all members that run count a member among the voters, and not only it itself.
    async fn votes(&self, id: u8) -> Result<()> {
        let votes = eventually(format!("member {id} has a vote"), SOON, || async {
            for other in self.running() {
                let members = self.status(other).await?.members;
                ensure!(
                    members.iter().any(|member| member.id == id && member.voter),
                    "member {other} says {members:?}"
                );
            }
            anyhow::Ok(())
        });
        Ok(votes.await?)
    }

    /// Waits until all members that run know the same leader, and returns it.
    async fn leader(&self) -> Result<u8> {
        self.leader_of(&self.running()).await
    }

    /// Waits until these members know the same leader, and returns it.
    async fn leader_of(&self, members: &[u8]) -> Result<u8> {
        let agreed = eventually(format!("members {members:?} know the same leader"), SOON, || async {
            let mut leaders = Vec::new();
            for id in members {
                leaders.push(self.status(*id).await?.leader);
            }
            match leaders.first() {
                Some(Some(leader)) if leaders.iter().all(|other| other == &Some(*leader)) => Ok(*leader),
                _ => bail!("they say {leaders:?}"),
            }
        });
        Ok(agreed.await?)
    }

    /// Waits until these members know the same leader, and it is another one than before.
    async fn successor(&self, before: u8, members: &[u8]) -> Result<u8> {
        let succeeded = eventually(format!("members {members:?} follow another one than {before}"), SOON, || async {
            match self.leader_of(members).await? {
                leader if leader == before => bail!("they follow it still"),
                leader => Ok(leader),
            }
        });
        Ok(succeeded.await?)
    }

    /// A member that runs and is not the leader.
    async fn follower(&self) -> Result<u8> {
        let leader = self.leader().await?;
        self.running().into_iter().find(|id| *id != leader).context("no member follows")
    }

    /// Waits until all members that run have applied the same changes, and checks that their trees are equal.
    async fn converged(&self) -> Result<Status> {
        let running = self.running();
        let statuses = eventually("all members have applied the same changes", SOON, || async {
            let mut statuses = Vec::new();
            for id in &running {
                statuses.push(self.status(*id).await?);
            }
            let zxids: Vec<_> = statuses.iter().map(|status| status.zxid).collect();
            ensure!(zxids.iter().all(|zxid| *zxid == zxids[0]), "members {running:?} are at {zxids:?}");
            Ok(statuses)
        });
        let statuses = statuses.await?;
        let digests: Vec<_> = statuses.iter().map(|status| status.digest.as_str()).collect();
        ensure!(
            digests.iter().all(|digest| *digest == digests[0]),
            "members {running:?} differ at zxid {}: {digests:?}",
            statuses[0].zxid
        );
        statuses.into_iter().next().context("no member runs")
    }
}
