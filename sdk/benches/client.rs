//! What the client itself costs: many calls against a member that does nothing but answer.
//!
//! `cargo bench -p quorate --bench client`. Prints calls per second for sessions x calls in flight, and the CPU time
//! of a call where the system tells it, which says more on a busy machine. The member runs in the same process, so
//! about half of the cost is its own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use quorate::Client;
use quorate_proto::v1::{self, reply, request::Op, server_item::Item, session_server};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

const WINDOW: Duration = Duration::from_secs(2);

struct Answerer;

#[tonic::async_trait]
impl session_server::Session for Answerer {
    type AttachStream = std::pin::Pin<Box<dyn Stream<Item = Result<v1::ServerFrame, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ClientFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        static SESSIONS: AtomicU64 = AtomicU64::new(1);
        let data = bytes::Bytes::from(vec![7; 1024]);
        let answers = request.into_inner().map(move |frame| {
            let frame = frame?;
            let mut items = Vec::with_capacity(frame.requests.len() + 1);
            if let Some(attach) = frame.attach {
                items.push(Item::Attached(v1::Attached {
                    key: Some(v1::SessionKey {
                        session_id: SESSIONS.fetch_add(1, Ordering::Relaxed),
                        password: vec![0; 16].into(),
                    }),
                    timeout_ms: attach.timeout_ms,
                    attachment: 1,
                    zxid: 1,
                    member_id: 1,
                    next_write: 1,
                    inflight_max: 1000,
                    frame_bytes_max: 1024 * 1024,
                }));
            }
            for request in frame.requests {
                let result = match request.op {
                    Some(Op::Get(_)) => {
                        reply::Result::Get(v1::GetReply { data: data.clone(), stat: Some(v1::Stat::default()) })
                    }
                    Some(Op::SetData(_)) => reply::Result::Stat(v1::Stat::default()),
                    _ => reply::Result::Done(v1::Done {}),
                };
                items.push(Item::Reply(v1::Reply { seq: request.seq, zxid: request.seq, result: Some(result) }));
            }
            Ok(v1::ServerFrame { items: items.into_iter().map(|item| v1::ServerItem { item: Some(item) }).collect() })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Four reads to a write, as the measurements of the stream's shape had it.
async fn work(client: Client, until: Instant, first: usize) -> u64 {
    let data = bytes::Bytes::from(vec![1; 256]);
    let mut done = 0;
    while Instant::now() < until {
        if (first + done as usize).is_multiple_of(5) {
            client.set("/bench/node-with-a-path-000001", data.clone()).await.expect("it answers");
        } else {
            client.get("/bench/node-with-a-path-000001").await.expect("it answers");
        }
        done += 1;
    }
    done
}

/// CPU time of this process so far, in hundredths of a second.
fn cpu_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn main() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let server = runtime();
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    server.spawn(
        Server::builder()
            .tcp_nodelay(true)
            .add_service(session_server::SessionServer::new(Answerer))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );

    let shapes = [(1, 1), (1, 64), (32, 16), (64, 1)];
    runtime().block_on(async {
        for (sessions, in_flight) in shapes {
            let mut clients = Vec::new();
            for _ in 0..sessions {
                clients.push(Client::builder(endpoint.as_str()).connect().await.expect("it attaches"));
            }
            let (started, ticks) = (Instant::now(), cpu_ticks());
            let tasks: Vec<_> = clients
                .iter()
                .flat_map(|client| (0..in_flight).map(move |first| (client.clone(), first)))
                .map(|(client, first)| tokio::spawn(work(client, started + WINDOW, first)))
                .collect();
            let mut done = 0;
            for task in tasks {
                done += task.await.expect("no call fails");
            }
            let rate = done as f64 / started.elapsed().as_secs_f64();
            let cpu = match (ticks, cpu_ticks()) {
                (Some(before), Some(after)) => {
                    format!("{:6.1} us of CPU a call", (after - before) as f64 * 1e4 / done as f64)
                }
                _ => String::new(),
            };
            println!("{sessions:>3} x {in_flight:<3} {rate:>10.0} calls/s {cpu}");
            for client in clients {
                let _ = client.close(Duration::from_secs(1)).await;
            }
        }
    });
}
