//! A caller that says it is a member.

use futures_util::StreamExt;
use prost::Message;
use quorate_proto::peer::{self, peer_client::PeerClient};
use tokio::net::TcpStream;
use tonic::Code;

use super::*;
use crate::ensemble::exchange;

/// Once it was agreed, and ended every member that applied it, at each start anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_member_could_apply_is_not_agreed_whoever_proposes_it() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let other = cluster.followers(leader)[0];
    let connect = async |member| PeerClient::connect(format!("http://{}", cluster.peers[&MemberId(member)])).await;
    let said = connect(other).await.unwrap().greet(peer::Greeting::default()).await.unwrap().into_inner();

    let without_op = peer::Proposal {
        member: other.into(),
        incarnation: said.incarnation,
        lane_seq: 1_000,
        command: Some(peer::Command::default()),
        traceparent: String::new(),
    };
    for proposal in [without_op.encode_to_vec(), vec![0xff; 10]] {
        let frame = peer::ForwardFrame { proposals: vec![proposal.into()], ..peer::ForwardFrame::default() };
        let frames = futures_util::stream::iter([frame]).chain(futures_util::stream::pending());
        let opening = peer::StreamOpening { greeting: Some(said.clone()), kind: peer::StreamKind::Forward.into() };
        let socket = TcpStream::connect(&cluster.peers[&MemberId(leader)]).await.unwrap();
        let answers = exchange::open::<_, _, peer::LeaderFrame>(socket, opening, frames).await.unwrap();
        let ended =
            answers.take_while(|answer| std::future::ready(answer.is_ok())).for_each(|_| std::future::ready(()));
        timeout(PATIENCE, ended).await.expect("the stream of a member that sends garbage goes on");
    }

    let running = cluster.member(leader);
    let session = timeout(PATIENCE, running.open_session(40_000)).await.unwrap();
    timeout(PATIENCE, running.write(session, create("/n"))).await.unwrap();
    cluster.agreed("/").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_strangers_and_of_unknown_kinds_are_refused_with_the_reason() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let address = cluster.peers[&MemberId(leader)].clone();
    let connected =
        PeerClient::connect(format!("http://{address}")).await.unwrap().greet(peer::Greeting::default()).await;
    let known = connected.unwrap().into_inner();
    let refusal = async |greeting, kind| {
        let opening = peer::StreamOpening { greeting, kind };
        let socket = TcpStream::connect(&address).await.unwrap();
        let frames = futures_util::stream::pending::<peer::ForwardFrame>();
        exchange::open::<_, _, peer::LeaderFrame>(socket, opening, frames).await.map(|_| ()).unwrap_err().code()
    };

    assert_eq!(refusal(Some(known.clone()), 77).await, Code::Unimplemented);
    let other_list = peer::Greeting { list_hash: known.list_hash + 1, ..known };
    assert_eq!(refusal(Some(other_list), peer::StreamKind::Append.into()).await, Code::FailedPrecondition);
    assert_eq!(refusal(None, peer::StreamKind::Append.into()).await, Code::FailedPrecondition);
    cluster.stop().await;
}
