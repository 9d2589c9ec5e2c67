//! Makes the sequence numbers of copied parents go on where they were.
//!
//! The number of the next sequential child is how many children its parent has had. Those that were deleted are not
//! there to be copied, so as many are created and deleted again.

use futures_util::{StreamExt, TryStreamExt, stream};
use quorate::{Client, Error};
use quorate_tree::Limits;

use super::{
    copy::{self, Counter, Obstacle, created},
    report::{NotCarried, Report},
};

/// Parents under way.
const UNDER_WAY_MAX: usize = 16;
/// A parent that lacks more is told, and left.
const LACK_MAX: u32 = 1_000_000;
/// Children created and deleted in one transaction, and the bytes of their paths.
const PAIRS_MAX: usize = 500;
const PATHS_BYTES_MAX: usize = 256 * 1024;
const NAME: &str = "quorate-import-counter";

const _: () = assert!(2 * PAIRS_MAX <= Limits::DEFAULT.multi_ops_max);

/// What a parent has come to.
enum Raised {
    NotNeeded,
    Done,
    TooFar(u32),
    Refused(Obstacle),
}

/// Raises all counters that lack something.
pub(super) async fn raise(client: &Client, counters: Vec<Counter>, report: &mut Report) -> Result<(), Error> {
    let mut raised = stream::iter(counters)
        .map(|counter| async move {
            let raised = match raise_one(client, &counter).await {
                Ok(raised) => raised,
                Err(error) => Raised::Refused(copy::refused_here(error)?),
            };
            Ok::<_, Error>((counter.path, raised))
        })
        .buffer_unordered(UNDER_WAY_MAX);
    while let Some((path, raised)) = raised.try_next().await? {
        let (reason, permission) = match raised {
            Raised::NotNeeded => continue,
            Raised::Done => {
                report.counters += 1;
                continue;
            }
            Raised::TooFar(lacking) => (format!("its sequence numbers are {lacking} behind those of ZooKeeper"), false),
            Raised::Refused(Obstacle { reason, permission }) => {
                (format!("its sequence numbers are behind those of ZooKeeper: {reason}"), permission)
            }
        };
        report.not_carried.add(NotCarried { path, reason, permission });
    }
    Ok(())
}

async fn raise_one(client: &Client, counter: &Counter) -> Result<Raised, Error> {
    let Some(stat) = client.exists(&counter.path).await? else { return Ok(Raised::NotNeeded) };
    let here = created(stat.cversion, i32::try_from(stat.num_children).unwrap_or(i32::MAX));
    let mut lacking = counter.created.saturating_sub(here);
    match lacking {
        0 => return Ok(Raised::NotNeeded),
        _ if lacking > LACK_MAX => return Ok(Raised::TooFar(lacking)),
        _ => {}
    }
    let child = match counter.path.as_str() {
        "/" => format!("/{NAME}"),
        path => format!("{path}/{NAME}"),
    };
    let pairs_max = (PATHS_BYTES_MAX / (2 * child.len())).clamp(1, PAIRS_MAX);
    while lacking > 0 {
        let pairs = lacking.min(u32::try_from(pairs_max).expect("a small number"));
        let mut txn = client.txn();
        for _ in 0..pairs {
            txn = txn.create(&child, "").delete(&child);
        }
        txn.await?;
        lacking -= pairs;
    }
    Ok(Raised::Done)
}
