//! `quorate bench`, against a real ensemble and both its doors.

mod cli;

use cli::{quorate, run};
use quorate_sidecar::testing::TestEnsemble;
use serde_json::Value;
use tokio::runtime::Runtime;

const SHORT: [&str; 8] = ["--duration", "300ms", "--warm-up", "50ms", "--keys", "20", "--sessions", "3"];
const WORKLOADS: [&str; 11] =
    ["set", "create", "get", "lget", "mixed", "eph", "lock8", "churn", "watch1000", "memory", "idle"];

fn ensemble() -> (Runtime, TestEnsemble) {
    let runtime = Runtime::new().unwrap();
    let ensemble = runtime.block_on(TestEnsemble::start(1)).unwrap();
    (runtime, ensemble)
}

#[test]
fn every_workload_runs_over_both_protocols_and_leaves_nothing_behind() {
    let (runtime, ensemble) = ensemble();
    for zookeeper in [false, true] {
        let mut command = quorate(["bench", "-o", "json", "--assert", "errors=0,ops>0"]);
        command.args(WORKLOADS).args(SHORT).env("QUORATE_ENDPOINT", ensemble.endpoint(1));
        // The members live in this process.
        command.args(["--server-pids", &std::process::id().to_string()]);
        if zookeeper {
            command.args(["--zookeeper", &ensemble.zookeeper_endpoint(1)]);
        }

        let said = run(&mut command);

        assert_eq!(said.code, Some(0), "{said:?}");
        let results: Vec<Value> = serde_json::from_str(&said.out).unwrap();
        let names: Vec<_> = results.iter().map(|result| result["workload"].as_str().unwrap()).collect();
        assert_eq!(names, WORKLOADS);
        for result in &results {
            assert!(result["p50_ms"].as_f64() <= result["p99_ms"].as_f64(), "{result}");
            assert!(result["usage"]["server_memory_bytes"][0].as_u64() > Some(0), "{result}");
        }
        let left = run(quorate(["ls", "/bench"]).env("QUORATE_ENDPOINT", ensemble.endpoint(1)));
        assert_eq!((left.code, left.out.as_str()), (Some(0), ""), "{left:?}");
    }
    runtime.block_on(ensemble.shutdown());
}

#[test]
fn what_others_wait_is_measured_beside_very_many_of_something() {
    let (runtime, ensemble) = ensemble();
    let mut command =
        quorate(["bench", "children", "ephemerals", "watches", "-o", "json", "--assert", "errors=0,ops>0"]);
    command.args(["--keys", "1500", "--duration", "100ms", "--zookeeper", &ensemble.zookeeper_endpoint(1)]);
    command.args(["--server-pids", &std::process::id().to_string()]);
    command.env("QUORATE_ENDPOINT", ensemble.endpoint(1));

    let said = run(&mut command);

    assert_eq!(said.code, Some(0), "{said:?}");
    let results: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    let text = |result: &Value, field: &str| result[field].as_str().unwrap().to_owned();
    let parts: Vec<_> =
        results.iter().map(|result| [text(result, "workload"), text(result, "part")].concat()).collect();
    let expected = ["childrenquiet", "childrenlist", "ephemeralsquiet", "ephemeralsclose", "ephemeralsexpire"];
    let expected = [&expected[..], &["watchesquiet", "watchesset", "watchesdrop", "watchesset again"]].concat();
    assert_eq!(parts, expected.into_iter().flat_map(|part| [part, part]).collect::<Vec<_>>());
    for result in &results {
        assert!(result["memory_bytes"][0].as_u64() > Some(0), "{result}");
        let timed = !["quiet", "drop"].contains(&result["part"].as_str().unwrap());
        assert_eq!(result["round_ms"].is_number(), timed, "{result}");
    }
    let left = run(quorate(["ls", "/bench"]).env("QUORATE_ENDPOINT", ensemble.endpoint(1)));
    assert_eq!((left.code, left.out.as_str()), (Some(0), ""), "{left:?}");
    runtime.block_on(ensemble.shutdown());
}

#[test]
fn what_is_kept_is_found_where_the_answer_says() {
    let (runtime, ensemble) = ensemble();
    let mut command = quorate(["bench", "memory", "-o", "json", "--keys", "2500", "--value-size", "7", "--keep"]);
    command.env("QUORATE_ENDPOINT", ensemble.endpoint(1));

    let said = run(&mut command);

    assert_eq!(said.code, Some(0), "{said:?}");
    let results: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    let folder = results[0]["folder"].as_str().unwrap();
    let ask = |args: &[&str]| run(quorate(args).env("QUORATE_ENDPOINT", ensemble.endpoint(1))).out;
    assert_eq!(ask(&["ls", folder]).lines().count(), 834);
    assert_eq!(ask(&["ls", &format!("{folder}/d833")]).trim(), "k0000000");
    assert_eq!(ask(&["get", &format!("{folder}/d000/k0000002")]).trim(), "xxxxxxx");
    runtime.block_on(ensemble.shutdown());
}

#[test]
fn the_first_write_after_a_kill_is_found_over_both_protocols() {
    let (runtime, ensemble) = ensemble();
    for zookeeper in [false, true] {
        // Nobody is killed, so that the next write is the first one after it.
        let mut command = quorate(["bench", "failover", "-o", "json", "--rounds", "2", "--warm-up", "100ms"]);
        command.args(["--kill-cmd", "date +%s%N", "--restart-cmd", "true"]);
        command.env("QUORATE_ENDPOINT", ensemble.endpoint(1));
        if zookeeper {
            command.args(["--zookeeper", &ensemble.zookeeper_endpoint(1)]);
        }

        let said = run(&mut command);

        assert_eq!(said.code, Some(0), "{said:?}");
        let results: Vec<Value> = serde_json::from_str(&said.out).unwrap();
        assert!(results[0]["round_ms"].as_f64() > Some(0.0), "{said:?}");
    }
    runtime.block_on(ensemble.shutdown());
}

#[test]
fn an_open_loop_does_what_is_due_and_no_more() {
    let (runtime, ensemble) = ensemble();
    let mut command = quorate(["bench", "get", "-o", "json", "--rate", "200", "--sessions", "2", "--keys", "5"]);
    command.args(["--duration", "1s", "--warm-up", "0s"]).env("QUORATE_ENDPOINT", ensemble.endpoint(1));

    let said = run(&mut command);

    let results: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    let rate = results[0]["ops_per_second"].as_f64().unwrap();
    assert!(rate > 0.0 && rate <= 202.0, "{rate}");
    runtime.block_on(ensemble.shutdown());
}

#[test]
fn what_does_not_hold_and_what_is_not_there_ends_with_its_code() {
    let (runtime, ensemble) = ensemble();
    let endpoint = ensemble.endpoint(1);
    let bench = |args: &[&str]| run(quorate(["bench"]).args(args).args(SHORT).env("QUORATE_ENDPOINT", &endpoint));

    let said = bench(&["get", "--assert", "p99<1ns"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("does not hold: get: p99 in ms is"), "{said:?}");

    bench(&["gets"]).refused(2, "there are set-lat, set, create");
    bench(&["get", "--assert", "p98<1ms"]).refused(2, "a condition is one of");
    bench(&["get", "--kill-cmd", "true"]).refused(2, "--restart-cmd");
    bench(&["get", "--server-pids", "4294967295"]).refused(1, "there is no process 4294967295");
    bench(&["get", "--zookeeper", "127.0.0.1:1"]).refused(4, "no session with 127.0.0.1:1");
    let nobody = run(quorate(["bench", "get"]).env("QUORATE_ENDPOINT", "http://127.0.0.1:1"));
    nobody.refused(4, "127.0.0.1:1");
    runtime.block_on(ensemble.shutdown());
}
