//! The Rust crate `zookeeper-client`, by other people.

use anyhow::{Context, Result, ensure};
use quorate_integration::{cluster::on_processes, ensemble::Ensemble, eventually::SOON};
use tokio::time::timeout;
use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, Error, EventType, LockOptions, LockPrefix, MultiWriteError, SessionState,
};

use crate::options;

async fn client(doors: &str) -> Result<Client> {
    Ok(Client::connector().with_session_timeout(std::time::Duration::from_secs(10)).connect(doors).await?)
}

#[test]
fn the_crate_zookeeper_client_works() {
    on_processes(options(), async |cluster| {
        let doors = cluster.zookeeper_doors();
        let (one, two) = (client(&doors).await?, client(&doors).await?);
        let open = CreateMode::Persistent.with_acls(Acls::anyone_all());

        // Nodes of all sorts.
        one.create("/rust", b"one", &open).await?;
        ensure!(matches!(one.create("/rust", b"", &open).await, Err(Error::NodeExists)), "created twice");
        let sequential = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
        let (_, number) = one.create("/rust/s-", b"", &sequential).await?;
        ensure!(number.into_i64() == 0, "{number}");
        one.create("/rust/c", b"", &CreateMode::Container.with_acls(Acls::anyone_all())).await?;
        let brief = CreateMode::Persistent.with_acls(Acls::anyone_all()).with_ttl(std::time::Duration::from_secs(100));
        one.create("/rust/t", b"", &brief).await?;
        one.create("/rust/e", b"", &CreateMode::Ephemeral.with_acls(Acls::anyone_all())).await?;
        ensure!(one.list_ephemerals("/rust").await? == ["/rust/e"], "ephemerals");
        ensure!(one.count_descendants_number("/rust").await? == 4, "descendants");
        let stat = one.set_data("/rust", b"two", Some(0)).await?;
        ensure!(stat.version == 1 && stat.num_children == 4, "{stat:?}");
        ensure!(matches!(one.set_data("/rust", b"", Some(7)).await, Err(Error::BadVersion)), "a wrong version");

        // What one does the other sees, and is told of.
        two.sync("/rust").await?;
        let (data, _, changed) = two.get_and_watch_data("/rust").await?;
        ensure!(data == b"two", "{data:?}");
        let mut below = two.watch("/rust", AddWatchMode::PersistentRecursive).await?;
        one.set_data("/rust", b"three", None).await?;
        let event = timeout(SOON, changed.changed()).await?;
        ensure!(event.event_type == EventType::NodeDataChanged, "{event:?}");
        one.delete("/rust/t", None).await?;
        let events = [timeout(SOON, below.changed()).await?, timeout(SOON, below.changed()).await?];
        let told = events.each_ref().map(|event| (event.event_type, event.path.as_str()));
        let expected = [(EventType::NodeDataChanged, "/rust"), (EventType::NodeDeleted, "/rust/t")];
        ensure!(told == expected, "{told:?}");

        // All or nothing.
        let mut writer = one.new_multi_writer();
        writer.add_create("/rust/m", b"", &open)?;
        writer.add_check_version("/rust", 2)?;
        writer.add_delete("/rust/c", None)?;
        ensure!(writer.commit().await?.len() == 3, "results");
        let mut writer = one.new_multi_writer();
        writer.add_delete("/rust/m", None)?;
        writer.add_check_version("/rust", 99)?;
        let refused = writer.commit().await;
        let second = matches!(refused, Err(MultiWriteError::OperationFailed { index: 1, source: Error::BadVersion }));
        ensure!(second, "{refused:?}");
        let mut reader = one.new_multi_reader();
        reader.add_get_data("/rust")?;
        reader.add_get_children("/rust/none")?;
        ensure!(reader.commit().await?.len() == 2, "results");

        // Access.
        one.auth("digest", b"ada:secret").await?;
        let users = one.list_auth_users().await?;
        ensure!(users.iter().any(|user| user.user() == "ada"), "{users:?}");
        one.create("/hidden", b"", &CreateMode::Persistent.with_acls(Acls::creator_all())).await?;
        two.sync("/").await?;
        ensure!(matches!(two.get_data("/hidden").await, Err(Error::NoAuth)), "it is not hidden");
        let (config, _) = two.get_config().await?;
        ensure!(String::from_utf8_lossy(&config).contains("server.3="), "{config:?}");

        // Its lock.
        let options = LockOptions::new(Acls::anyone_all()).with_ancestor_options(open.clone())?;
        let held = one.lock(LockPrefix::new_curator("/rust/lock", "latch-")?, b"", options.clone()).await?;
        let mut wanted = std::pin::pin!(two.lock(LockPrefix::new_curator("/rust/lock", "latch-")?, b"", options));
        let soon = timeout(std::time::Duration::from_millis(200), &mut wanted).await;
        ensure!(soon.is_err(), "both have it");
        drop(held);
        timeout(SOON, wanted).await.context("it is free and nobody gets it")??;
        Ok(())
    });
}

#[test]
fn a_session_of_zookeeper_client_moves_when_members_are_killed_and_keeps_its_ephemerals_and_watches() {
    on_processes(options(), async |cluster| {
        let client = client(&cluster.zookeeper_doors()).await?;
        let session = client.session_id();
        client.create("/mine", b"", &CreateMode::Ephemeral.with_acls(Acls::anyone_all())).await?;
        let mut states = client.state_watcher();

        // Each member in turn: one of them serves it.
        for id in cluster.ids() {
            let (_, once) = client.check_and_watch_stat("/once").await?;
            cluster.kill(id).await?;
            let other = self::client(&cluster.zookeeper_doors()).await?;
            other.create("/once", b"", &CreateMode::Ephemeral.with_acls(Acls::anyone_all())).await?;
            let event = timeout(SOON, once.changed()).await.context("its watch does not fire")?;
            ensure!(event.event_type == EventType::NodeCreated, "{event:?}");
            other.sync("/").await?;
            ensure!(other.check_stat("/mine").await?.is_some(), "its ephemeral node is gone");
            drop(other);
            cluster.start(id).await?;
            cluster.all_ready().await?;
            while !matches!(states.peek_state(), SessionState::SyncConnected) {
                let state = timeout(SOON, states.changed()).await?;
                ensure!(!state.is_terminated(), "the session is {state:?}");
            }
            let gone = async {
                while let (Some(_), gone) = client.check_and_watch_stat("/once").await? {
                    gone.changed().await;
                }
                anyhow::Ok(())
            };
            timeout(SOON, gone).await.context("the other session does not end")??;
        }
        ensure!(client.session_id() == session, "the session is another one");
        Ok(())
    });
}
