//! Members that are brought up from a snapshot while clients use them.

use anyhow::{Context, Result, bail, ensure};
use futures_util::{FutureExt, StreamExt};
use quorate::{ChangeReason, DataEvent};
use quorate_integration::{
    ensemble::Ensemble,
    eventually::{SOON, eventually},
    load::{close, connect},
    local::{Local, in_process_with},
};
use tokio::time::timeout;

const SNAPSHOT_LOG_BYTES: u64 = 64 * 1024;

/// A follower is cut off until the others have purged the log it would need, and gets a snapshot while it serves a
/// client: what that client reads never goes back, and it gets the events it missed.
async fn snapshot_is_installed_under_a_client(local: &mut Local) -> Result<()> {
    let (leader, behind) = (local.leader().await?, local.follower().await?);
    let session_timeout = local.tick() * 20;
    let client = connect(vec![local.endpoint(behind)], session_timeout).await?;
    let session = client.session().context("it is connected")?.id();
    let writer = connect(vec![local.endpoint(leader)], session_timeout).await?;
    writer.create("/news").data("0").await?;
    writer.create("/goes").await?;
    writer.create("/bulk").await?;
    client.sync("/").await?;
    client.create("/mine").ephemeral().await?;
    let mut news = client.watch("/news").data();
    timeout(SOON, news.next()).await.context("the watch is silent")?.context("the watch has ended")??;
    let mut gone = std::pin::pin!(client.watch("/goes").once_deleted());
    ensure!(timeout(local.tick(), &mut gone).await.is_err(), "it is there");
    let mut states = client.states();
    let before = local.status(behind).await?.log_index;

    local.cut_off(behind).await?;
    writer.set("/news", "1").await?;
    writer.delete("/goes").await?;
    // Each snapshot keeps as much of the log as made it due: several of them leave nothing of what was missed.
    for _ in 0..3 {
        let last = local.status(leader).await?.log_index.max(before);
        let purged = eventually("the leader has written a snapshot", SOON, || async {
            writer.set("/bulk", vec![7; 32 * 1024]).await?;
            let index = local.status(leader).await?.snapshot_index;
            ensure!(index > last, "its last is at {index}, not beyond {last}");
            anyhow::Ok(())
        });
        purged.await?;
    }
    let written = writer.set("/news", "2").await?;
    local.heal(behind).await?;

    let mut last = 0;
    let seen = async {
        while last < written.mzxid {
            let stat = client.exists("/news").await?.context("it exists")?;
            ensure!(stat.mzxid >= last, "{} was seen after {last}", stat.mzxid);
            last = stat.mzxid;
        }
        anyhow::Ok(())
    };
    timeout(SOON, seen).await.context("the client does not see what was written")??;
    timeout(SOON, gone).await.context("the deletion was not told")??;
    loop {
        let event =
            timeout(SOON, news.next()).await.context("the event is missing")?.context("the watch has ended")??;
        match event {
            DataEvent::Value(node) if node.data == "2" => break,
            DataEvent::Value(node) if node.data == "1" => {}
            other => bail!("{other:?}"),
        }
    }
    let mut reasons = Vec::new();
    while let Some(Some(change)) = states.next().now_or_never() {
        reasons.push(change.reason);
    }
    ensure!(reasons.contains(&ChangeReason::MemberLeft), "no snapshot was installed under the client: {reasons:?}");
    ensure!(client.session().map(|now| now.id()) == Some(session), "the session is another one");
    let owner = writer.exists("/mine").linearizable().await?.and_then(|stat| stat.ephemeral_owner);
    ensure!(owner == Some(session), "the ephemeral node belongs to {owner:?}");
    close(client).await?;
    close(writer).await?;
    local.converged().await?;
    Ok(())
}

#[test]
fn a_client_whose_member_installs_a_snapshot_reads_nothing_older_and_misses_no_event() {
    in_process_with(
        |builder| builder.snapshot_log_bytes(SNAPSHOT_LOG_BYTES),
        async |local| snapshot_is_installed_under_a_client(local).await,
    );
}
