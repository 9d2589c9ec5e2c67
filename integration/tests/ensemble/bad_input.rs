//! Whatever comes in at a door, and whatever a member is started on: a clear answer, and nobody else notices.

use std::{fs, net::SocketAddr, process::Output};

use anyhow::{Context, Result, bail, ensure};
use quorate_integration::{
    admin,
    cluster::{Cluster, Options, on_processes, run_to_the_end},
    ensemble::Ensemble,
    eventually::{SOON, eventually},
    load::{close, connect},
    raw::{RawSession, create, heartbeat, status_of},
};
use quorate_proto::v1::{
    AttachRequest, Attached, AuthRequest, ClientFrame, CreateMode, CreateRequest, GetRequest, Refusal, Request,
    SessionKey, TransactionOp, TransactionRequest, goodbye::Reason, reply::Result as Answer, request::Op,
    server_item::Item, transaction_op,
};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Status};

/// An ensemble still does its work.
async fn serves(cluster: &mut Cluster, round: &str) -> Result<()> {
    for id in cluster.ids() {
        cluster.check_alive(id)?;
        let client = connect(vec![cluster.endpoint(id)], cluster.tick() * 20).await?;
        client.create(&format!("/{round}-{id}")).await?;
        close(client).await?;
    }
    cluster.converged().await?;
    Ok(())
}

/// Sends bytes and waits until the member closes the connection.
async fn offend(door: SocketAddr, bytes: &[u8]) -> Result<()> {
    let offend = async {
        let mut stream = TcpStream::connect(door).await?;
        // The member may close while we still send, which is as good.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        anyhow::Ok(())
    };
    timeout(SOON, offend).await.with_context(|| format!("{door} keeps a connection that sends garbage"))?
}

#[test]
fn garbage_at_any_door_closes_that_connection_and_disturbs_nobody() {
    on_processes(Options::default(), async |cluster| {
        let mut random = StdRng::seed_from_u64(1);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for length in [0, 1, 9, 24, 1000, 100_000] {
            let mut noise = vec![0; length];
            random.fill_bytes(&mut noise);
            // Noise alone, noise where HTTP/2 or a member's stream is expected, and half a request of HTTP/1.
            let (http2, stream) = ([&preface[..], &noise].concat(), [b"QUORATE\n", &noise[..]].concat());
            let inputs = [noise, http2, stream, b"GET /readyz HT".to_vec()];
            for input in inputs {
                for door in [cluster.client_door(1), cluster.peer_door(1), cluster.admin_door(1)] {
                    offend(door, &input).await?;
                }
            }
        }
        serves(cluster, "after-garbage").await
    });
}

/// Waits for the end of a stream that broke the protocol, and tells what was said last.
async fn last_word(session: &mut RawSession) -> Result<Result<Reason, Option<Status>>> {
    let last = async {
        loop {
            match session.next().await {
                Ok(Some(Item::Goodbye(goodbye))) => return Ok(goodbye.reason()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(None),
                Err(status) => return Err(Some(status)),
            }
        }
    };
    timeout(SOON, last).await.context("the stream goes on")
}

#[test]
fn a_stream_that_breaks_the_protocol_ends_and_its_session_goes_on() {
    on_processes(Options::default(), async |cluster| {
        let endpoint = cluster.endpoint(1);
        let open = async || RawSession::open(&endpoint, 10_000).await;

        // A number left out, an attach in the middle, too many requests in one frame, a request that asks nothing.
        let request = |seq| Request { seq, op: Some(heartbeat()), ..Request::default() };
        let offences = [
            ClientFrame { attach: None, requests: vec![request(7)] },
            ClientFrame { attach: Some(AttachRequest::default()), requests: Vec::new() },
            ClientFrame { attach: None, requests: (1..=1025).map(request).collect() },
            ClientFrame { attach: None, requests: vec![Request { seq: 1, ..Request::default() }] },
        ];
        for offence in offences {
            let mut session = open().await?;
            session.write(create("/kept", CreateMode::Ephemeral)).await?;
            let mut again = RawSession::resume(&endpoint, &session.attached).await?;
            let told = offence.clone();
            again.send_frame(offence).await?;
            let reason = last_word(&mut again).await?;
            ensure!(matches!(reason, Ok(Reason::Protocol)), "{reason:?} for {told:?}");
            let mut once_more = RawSession::resume(&endpoint, &session.attached).await?;
            once_more.ask(Op::Close(Default::default())).await?;
        }

        // A node larger than a node may be is refused; a frame larger than a frame may be ends the stream.
        let mut session = open().await?;
        let large = |bytes| {
            let data = vec![0; bytes].into();
            Op::Create(CreateRequest { path: "/large".into(), data, ..CreateRequest::default() })
        };
        let reply = session.write(large(1024 * 1024 + 1)).await?;
        let Some(Answer::Refused(refused)) = reply.result else { bail!("a node of more than 1 MiB was taken") };
        ensure!(refused.reason() == Refusal::LimitExceeded, "{refused:?}");
        ensure!(!refused.message.is_empty(), "a refusal without a word");
        session.send_write(large(8 * 1024 * 1024)).await?;
        let _ = last_word(&mut session).await?;
        serves(cluster, "after-offences").await
    });
}

/// A member once proposed what its log does not take, and died of it, as did the next one.
#[test]
fn what_one_client_piles_up_kills_no_member() {
    on_processes(Options::default(), async |cluster| {
        for id in cluster.ids() {
            let mut session = RawSession::open(&cluster.endpoint(id), 10_000).await?;
            // Large ones, and so many small ones that they are large together.
            for (length, times) in [(3_900_000, 20), (1_000, 40)] {
                let mut refusals = 0;
                for round in 0..times {
                    let credential = format!("{round}{}:secret", "u".repeat(length)).into_bytes().into();
                    let reply = session.ask(Op::Auth(AuthRequest { scheme: "digest".into(), credential })).await?;
                    if let Some(Answer::Refused(refused)) = reply.result {
                        ensure!(refused.reason() == Refusal::AuthFailed, "{refused:?}");
                        refusals += 1;
                    }
                }
                ensure!(refusals >= 20, "{} of {times} names of {length} bytes were taken", times - refusals);
            }
            let op = TransactionOp { op: Some(transaction_op::Op::Create(CreateRequest::default())) };
            let ops = vec![op; 100_000];
            let reply = session.write(Op::Transaction(TransactionRequest { ops })).await?;
            let Some(Answer::Refused(refused)) = reply.result else { bail!("too many operations were taken") };
            ensure!(refused.reason() == Refusal::LimitExceeded, "{refused:?}");
            session.ask(Op::Close(Default::default())).await?;
        }
        serves(cluster, "after-piles").await
    });
}

#[test]
fn a_session_needs_its_password() {
    on_processes(Options::default(), async |cluster| {
        let endpoint = cluster.endpoint(1);
        let mut session = RawSession::open(&endpoint, 10_000).await?;
        session.write(create("/mine", CreateMode::Ephemeral)).await?;
        let key = session.key();
        let attach = async |key: SessionKey| {
            let attached = Attached { key: Some(key), ..session.attached.clone() };
            let error = RawSession::resume(&endpoint, &attached).await.err().context("it was let in")?;
            let status = status_of(&error).with_context(|| format!("no status: {error:#}"))?.clone();
            ensure!(!status.message().is_empty(), "a refusal without a word: {status:?}");
            Ok(status.code())
        };

        let mut wrong = key.password.to_vec();
        wrong[0] ^= 1;
        for password in [wrong, Vec::new(), vec![0; 1000]] {
            let code = attach(SessionKey { password: password.into(), ..key.clone() }).await?;
            ensure!(code == Code::Unauthenticated, "{code:?}");
        }
        let code = attach(SessionKey { session_id: key.session_id ^ 1, ..key.clone() }).await?;
        ensure!(code == Code::NotFound, "{code:?}");

        // Whoever tried it did the session no harm.
        session.ask(heartbeat()).await?;
        session.ask(Op::Close(Default::default())).await?;
        Ok(())
    });
}

/// A start that must be refused: not with success, and with a sentence that names the trouble.
fn refused(output: &Output, names: &[&str]) -> Result<()> {
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it started and ended with success: {message}");
    for name in names {
        ensure!(message.to_lowercase().contains(name), "{name:?} does not stand in: {message}");
    }
    ensure!(!message.contains("panicked"), "{message}");
    Ok(())
}

/// The arguments of a member with one of them changed.
fn with(cluster: &Cluster, id: u8, flag: &str, value: impl ToString) -> Result<Vec<String>> {
    let mut arguments = cluster.arguments(id);
    let place = arguments.iter().position(|argument| argument == flag).context("the flag is there")?;
    arguments[place + 1] = value.to_string();
    Ok(arguments)
}

#[test]
fn a_start_that_cannot_work_says_why_and_the_others_serve_on() {
    on_processes(Options::default(), async |cluster| {
        let client = connect(vec![cluster.endpoint(1)], cluster.tick() * 20).await?;
        client.create("/before").await?;
        cluster.kill(3).await?;

        // A port that another member has.
        let taken = cluster.client_door(1);
        refused(&run_to_the_end(with(cluster, 3, "--client-addr", taken)?).await?, &[&taken.to_string()])?;
        // An id that nobody knows.
        refused(&run_to_the_end(with(cluster, 3, "--id", 9)?).await?, &["9", "ensemble"])?;
        // The directory of a member that runs, and of one that does not.
        refused(&run_to_the_end(with(cluster, 3, "--data-dir", cluster.data(1).display())?).await?, &["member"])?;
        cluster.kill(2).await?;
        refused(&run_to_the_end(with(cluster, 3, "--data-dir", cluster.data(2).display())?).await?, &["member 2"])?;
        cluster.start(2).await?;
        cluster.ready(2).await?;
        // A list that is not the one this disk was made with.
        let ensemble = cluster.arguments(3).join(" ").replace(&cluster.peer_door(2).to_string(), "127.0.0.1:1");
        let list = ensemble.split(' ').skip_while(|word| *word != "--ensemble").nth(1).context("a list")?.to_owned();
        refused(&run_to_the_end(with(cluster, 3, "--ensemble", list)?).await?, &["127.0.0.1:1"])?;
        // A directory that is a file.
        let file = cluster.data(3).with_extension("file");
        fs::write(&file, "not a directory")?;
        refused(&run_to_the_end(with(cluster, 3, "--data-dir", file.display())?).await?, &["directory"])?;
        // A key that does not exist, and a file that is not there.
        let config = cluster.data(3).with_extension("toml");
        fs::write(&config, "tick_mss = 100\n")?;
        let arguments = |path: &str| ["serve", "--config", path].map(str::to_owned).to_vec();
        refused(&run_to_the_end(arguments(&config.display().to_string())).await?, &["tick_mss", "tick_ms"])?;
        refused(&run_to_the_end(arguments("/no/such/file.toml")).await?, &["/no/such/file.toml"])?;

        cluster.start(3).await?;
        cluster.all_ready().await?;
        ensure!(client.exists("/before").await?.is_some(), "it was lost");
        close(client).await?;
        serves(cluster, "after-refusals").await
    });
}

/// Two ensembles of one name: a member of one finds itself among the members of the other.
#[test]
fn a_member_of_another_ensemble_is_refused_and_disturbs_nobody() {
    on_processes(Options::default(), async |cluster| {
        let mut foreign = Cluster::new(Options { members: 1, ..Options::default() }).await?;
        foreign.start(1).await?;
        foreign.ready(1).await?;
        foreign.kill(1).await?;
        let before = cluster.converged().await?;

        // Its disk, started as member 1 of the cluster.
        cluster.kill(1).await?;
        let mine = cluster.data(1).with_extension("mine");
        fs::rename(cluster.data(1), &mine)?;
        let copied = std::process::Command::new("cp").arg("-r").arg(foreign.data(1)).arg(cluster.data(1)).status()?;
        ensure!(copied.success(), "cp failed");
        refused(&run_to_the_end(cluster.arguments(1)).await?, &["ensemble"])?;

        fs::remove_dir_all(cluster.data(1))?;
        fs::rename(&mine, cluster.data(1))?;
        cluster.start(1).await?;
        cluster.all_ready().await?;
        ensure!(cluster.converged().await?.zxid >= before.zxid, "something was lost");
        serves(cluster, "after-a-foreigner").await
    });
}

/// Flips a bit in each file of a member that is down: it must not start as if nothing were, or lose nothing.
#[test]
fn a_damaged_directory_is_noticed_or_harmless() {
    on_processes(Options::default(), async |cluster| {
        let client = connect(vec![cluster.endpoint(1), cluster.endpoint(2)], cluster.tick() * 20).await?;
        for index in 0..50 {
            client.create(&format!("/node-{index}")).data(vec![b'x'; 200]).await?;
        }
        cluster.stop(3).await?;
        let files: Vec<_> = walk(&cluster.data(3))?;
        ensure!(!files.is_empty(), "a member leaves files");
        let spare = cluster.data(3).with_extension("spare");
        fs::rename(cluster.data(3), &spare)?;

        for file in files {
            let copied = std::process::Command::new("cp").arg("-r").arg(&spare).arg(cluster.data(3)).status()?;
            ensure!(copied.success(), "cp failed");
            let path = cluster.data(3).join(&file);
            let mut bytes = fs::read(&path)?;
            let Some(middle) = bytes.len().checked_sub(1).map(|last| last / 2) else { continue };
            bytes[middle] ^= 0x10;
            fs::write(&path, bytes)?;

            cluster.start(3).await?;
            let outcome = eventually(format!("member 3 serves or ends, with {} damaged", file.display()), SOON, || {
                let alive = cluster.check_alive(3);
                let admin = cluster.admin_door(3);
                async move {
                    match alive {
                        Err(_) => Ok(false),
                        Ok(()) => match quorate_integration::admin::get(admin, "/readyz").await? {
                            (200, _) => Ok(true),
                            (code, body) => bail!("{code} {body}"),
                        },
                    }
                }
            });
            if outcome.await? {
                cluster.converged().await?;
            } else {
                let log = cluster.log(3);
                let last = log.lines().last().unwrap_or_default();
                eprintln!("{}: {last}", file.display());
            }
            cluster.kill(3).await?;
            fs::remove_dir_all(cluster.data(3))?;
        }

        fs::rename(&spare, cluster.data(3))?;
        cluster.start(3).await?;
        cluster.all_ready().await?;
        close(client).await?;
        serves(cluster, "after-damage").await
    });
}

/// The files below a directory, relative to it.
fn walk(directory: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(directory)?.to_owned());
            }
        }
    }
    Ok(files)
}

/// A client that lives and takes nothing is not a dead one: its connection answers the transport's own questions.
#[test]
fn a_client_that_takes_nothing_costs_nothing_after_its_timeout() {
    on_processes(Options::default(), async |cluster| {
        let timeout_ms = u32::try_from(cluster.tick().as_millis() * 4)?;
        let mut writer = RawSession::open(&cluster.endpoint(1), 20 * timeout_ms).await?;
        let big = CreateRequest { data: vec![7; 900_000].into(), ..CreateRequest::default() };
        let Op::Create(mut request) = create("/big", CreateMode::Persistent) else { bail!("a create") };
        request.data = big.data;
        writer.write(Op::Create(request)).await?;
        writer.ask(Op::Close(Default::default())).await?;

        let mut stuck = RawSession::open(&cluster.endpoint(1), timeout_ms).await?;
        for _ in 0..20 {
            stuck.send(Op::Get(GetRequest { path: "/big".into(), ..GetRequest::default() })).await?;
        }

        let admin = cluster.admin_door(1);
        eventually("the stream that nobody reads is gone", SOON, || async {
            let (_, status) = admin::get(admin, "/api/v1/status").await?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            ensure!(status["connections"] == 0 && status["sessions"] == 0, "{status}");
            anyhow::Ok(())
        })
        .await?;
        // Held until here: it was the member that ended it.
        drop(stuck);
        serves(cluster, "after-the-stuck").await
    });
}
