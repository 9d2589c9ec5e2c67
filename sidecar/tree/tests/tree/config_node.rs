//! What `/zookeeper/config` shows, and who may write it.

use quorate_tree::{Change, Identity, Op, Refusal};

use crate::driver::{Driver, named, set};

const CONFIG: &str = "/zookeeper/config";

fn publish(servers: &str) -> Op {
    Op::PublishConfig { servers: servers.into() }
}

fn text(driver: &Driver) -> String {
    let (data, _) = driver.tree.get(CONFIG, &[]).unwrap();
    String::from_utf8(data.unwrap().to_vec()).unwrap()
}

#[test]
fn a_new_one_is_empty_and_the_first_says_when_it_was_written() {
    let mut driver = Driver::new();
    assert_eq!((text(&driver).as_str(), driver.tree.published_config().as_str()), ("", ""));

    let servers = "server.1=a:1:1:participant;a:2181\nserver.2=b:1:1:participant";
    let done = driver.own(publish(servers));

    assert_eq!(done.changes, [Change::DataChanged { path: CONFIG.into() }]);
    assert_eq!(text(&driver), format!("{servers}\nversion={:x}", done.zxid.0));
    assert_eq!(driver.tree.published_config(), servers);
    let stat = driver.stat(CONFIG);
    assert_eq!((stat.version, stat.mzxid, stat.mtime_ms), (-1, done.zxid, driver.now_ms));
}

#[test]
fn what_it_says_already_is_not_written_again() {
    let mut driver = Driver::new();
    let first = driver.own(publish("server.1=a:1:1:participant")).zxid;

    let done = driver.own(publish("server.1=a:1:1:participant"));

    assert_eq!(done.changes, []);
    assert_eq!(driver.stat(CONFIG).mzxid, first);
    let done = driver.own(publish(""));
    assert_eq!((done.changes.len(), text(&driver).as_str()), (1, ""));
}

#[test]
fn only_the_super_user_may_write_it_and_the_ensemble_writes_over_that() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.own(publish("server.1=a:1:1:participant"));

    driver.refused(&alice, Op::SetData(set(CONFIG, "mine", -1)), Refusal::NoAuth);
    driver.accepted(&named(&alice, &[Identity::superuser()]), Op::SetData(set(CONFIG, "mine", -1)));
    assert_eq!(driver.tree.published_config(), "mine");
    driver.own(publish("server.1=a:1:1:participant"));

    assert_eq!(driver.tree.published_config(), "server.1=a:1:1:participant");
}
