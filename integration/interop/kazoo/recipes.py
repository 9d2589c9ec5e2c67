"""kazoo and its recipes against an ensemble: recipes.py HOST:PORT,HOST:PORT,...

Each check is a function of its own below. Prints a line for each, and "all passed" at the end.
"""

import logging
import sys
import threading
import time
import traceback
import uuid

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    InvalidACLError,
    NoAuthError,
    NoNodeError,
    NodeExistsError,
    NotEmptyError,
    NoChildrenForEphemeralsError,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
)
from kazoo.protocol.states import EventType, WatchedEvent
from kazoo.recipe.cache import TreeCache, TreeEvent
from kazoo.security import make_acl, make_digest_acl

HOSTS = sys.argv[1]
PATIENCE = 60
logging.basicConfig(level=logging.WARNING)


class Clients:
    """The clients of one check, closed at its end. Each check has a place of its own."""

    def __init__(self, name):
        self.root = "/%s-%s" % (name, uuid.uuid4().hex[:8])
        self.all = []

    def new(self, **options):
        client = KazooClient(hosts=HOSTS, timeout=8, **options)
        client.start(timeout=PATIENCE)
        self.all.append(client)
        return client

    def close(self):
        for client in self.all:
            client.stop()
            client.close()


def eventually(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain until " + what
        time.sleep(0.01)


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return
    raise AssertionError("it was not refused with %s" % error.__name__)


def nodes(clients):
    zk, root = clients.new(), clients.root
    zk.ensure_path(root)
    assert zk.create(root + "/a", b"one") == root + "/a"
    path, stat = zk.create(root + "/b", b"12345", include_data=True)
    assert (path, stat.dataLength, stat.version) == (root + "/b", 5, 0)
    data, stat = zk.get(root + "/a")
    assert (data, stat.version, stat.ephemeralOwner) == (b"one", 0, 0)
    assert zk.set(root + "/a", b"two", version=0).version == 1
    refused(BadVersionError, zk.set, root + "/a", b"three", version=0)
    refused(NodeExistsError, zk.create, root + "/a", b"")
    refused(NoNodeError, zk.get, root + "/nothing")
    refused(NotEmptyError, zk.delete, root)
    assert zk.exists(root + "/nothing") is None
    assert sorted(zk.get_children(root)) == ["a", "b"]
    names, stat = zk.get_children(root, include_data=True)
    assert stat.numChildren == 2 and stat.cversion == 2
    first = zk.create(root + "/s-", b"", sequence=True)
    second = zk.create(root + "/s-", b"", sequence=True)
    assert int(second[-10:]) == int(first[-10:]) + 1
    zk.create(root + "/e", b"", ephemeral=True)
    assert zk.get(root + "/e")[1].ephemeralOwner == zk.client_id[0]
    refused(NoChildrenForEphemeralsError, zk.create, root + "/e/child", b"")
    zk.create(root + "/deep/er/still", b"", makepath=True)
    assert zk.sync(root) == root
    zk.delete(root, recursive=True)
    assert zk.exists(root) is None
    large = b"x" * 900_000
    zk.create(root, large)
    assert zk.get(root)[0] == large


def pipelined(clients):
    zk, root = clients.new(), clients.root
    zk.ensure_path(root)
    waiting = [zk.create_async("%s/%d" % (root, n), b"%d" % n) for n in range(1000)]
    waiting += [zk.get_async("%s/%d" % (root, n)) for n in range(1000)]
    for n, one in enumerate(waiting[:1000]):
        assert one.get(timeout=PATIENCE) == "%s/%d" % (root, n)
    for n, one in enumerate(waiting[1000:]):
        assert one.get(timeout=PATIENCE)[0] == b"%d" % n


def transactions(clients):
    zk, root = clients.new(), clients.root
    zk.ensure_path(root)
    both = zk.transaction()
    both.create(root + "/a", b"1")
    both.check(root + "/a", 0)
    both.set_data(root + "/a", b"2")
    both.delete(root + "/a", 1)
    both.create(root + "/b", b"")
    created, checked, changed, deleted, other = both.commit()
    assert created == root + "/a" and checked is True and changed.version == 1 and deleted is True
    assert other == root + "/b"
    failing = zk.transaction()
    failing.create(root + "/c", b"")
    failing.check(root + "/b", 7)
    failing.delete(root + "/b")
    results = failing.commit()
    kinds = [type(result) for result in results]
    assert kinds == [RolledBackError, BadVersionError, RuntimeInconsistency], results
    assert zk.exists(root + "/c") is None and zk.exists(root + "/b") is not None


def access(clients):
    owner, other, root = clients.new(), clients.new(), clients.root
    owner.add_auth("digest", "ada:secret")
    acl = [make_digest_acl("ada", "secret", all=True)]
    owner.create(root, b"hidden", acl=acl)
    other.sync(root)
    refused(NoAuthError, other.get, root)
    refused(NoAuthError, other.create, root + "/child", b"")
    other.add_auth("digest", "ada:secret")
    assert other.get(root)[0] == b"hidden"
    owner.set_acls(root, [make_acl("world", "anyone", read=True), acl[0]])
    found, stat = owner.get_acls(root)
    assert len(found) == 2 and stat.aversion == 1
    refused(InvalidACLError, owner.create, root + "/bad", b"", acl=[make_acl("nobody", "x", all=True)])
    later = clients.new(auth_data=[("digest", "ada:secret")])
    later.sync(root)
    later.set(root, b"seen")


def watches(clients):
    zk, other, root = clients.new(), clients.new(), clients.root
    zk.ensure_path(root)
    events = []
    zk.exists(root + "/a", watch=events.append)
    other.sync(root)
    other.create(root + "/a", b"")
    eventually("the creation is told", lambda: len(events) == 1)
    assert events[0].type == EventType.CREATED
    zk.get(root + "/a", watch=events.append)
    zk.get_children(root, watch=events.append)
    other.set(root + "/a", b"x")
    other.create(root + "/b", b"")
    eventually("both changes are told", lambda: len(events) == 3)
    assert {event.type for event in events[1:]} == {EventType.CHANGED, EventType.CHILD}

    values, families = [], []

    @zk.DataWatch(root + "/a")
    def see(data, stat):
        values.append((data, stat and stat.version))

    @zk.ChildrenWatch(root)
    def look(children):
        families.append(sorted(children))

    other.set(root + "/a", b"y")
    other.delete(root + "/b")
    eventually("the last value is seen", lambda: values[-1] == (b"y", 2))
    eventually("the last family is seen", lambda: families[-1] == ["a"])
    other.delete(root + "/a")
    eventually("the end is seen", lambda: values[-1] == (None, None) and families[-1] == [])


def trees(clients):
    zk, other, root = clients.new(), clients.new(), clients.root
    zk.create(root + "/a/b", b"1", makepath=True)
    other.sync(root)
    cache = TreeCache(zk, root)
    seen = []
    cache.listen(lambda event: seen.append(event.event_type))
    cache.start()
    eventually("the tree is there", lambda: TreeEvent.INITIALIZED in seen)
    other.set(root + "/a/b", b"2")
    other.create(root + "/a/c", b"")
    eventually("the change is seen", lambda: cache.get_data(root + "/a/b").data == b"2")
    eventually("the child is seen", lambda: cache.get_children(root + "/a") == frozenset(["b", "c"]))
    other.delete(root + "/a", recursive=True)
    eventually("the end is seen", lambda: cache.get_data(root + "/a") is None)
    cache.close()


def locks(clients):
    root = clients.root
    holders, order, failures = [], [], []

    def work(zk, name):
        try:
            for _ in range(5):
                with zk.Lock(root + "/lock", name):
                    holders.append(name)
                    assert len(holders) == 1, holders
                    order.append(name)
                    time.sleep(0.002)
                    holders.remove(name)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(clients.new(), "w%d" % n)) for n in range(4)]
    [worker.start() for worker in workers]
    [worker.join(PATIENCE) for worker in workers]
    assert not failures and len(order) == 20, (failures, order)

    one, two = clients.new(), clients.new()
    held = one.Lock(root + "/other", "one")
    held.acquire()
    two.sync(root)
    wanted = two.Lock(root + "/other", "two")
    assert not wanted.acquire(blocking=False)
    assert held.contenders() == ["one"]
    held.release()
    assert wanted.acquire(timeout=PATIENCE)
    wanted.release()

    reads = [zk.ReadLock(root + "/rw", "r") for zk in (one, two)]
    [lock.acquire(timeout=PATIENCE) for lock in reads]
    write = clients.new().WriteLock(root + "/rw", "w")
    assert not write.acquire(blocking=False)
    [lock.release() for lock in reads]
    assert write.acquire(timeout=PATIENCE)
    write.release()

    semaphores = [clients.new().Semaphore(root + "/sem", "s%d" % n, max_leases=2) for n in range(3)]
    assert semaphores[0].acquire(timeout=PATIENCE) and semaphores[1].acquire(timeout=PATIENCE)
    assert not semaphores[2].acquire(blocking=False)
    semaphores[0].release()
    assert semaphores[2].acquire(timeout=PATIENCE)
    [one.release() for one in semaphores[1:]]


def elections(clients):
    root, leaders, done = clients.root, [], threading.Event()

    def run(zk, name):
        election = zk.Election(root, name)

        def lead():
            leaders.append(name)
            assert election.contenders()[0] == name

        election.run(lead)

    candidates = [threading.Thread(target=run, args=(clients.new(), "c%d" % n)) for n in range(3)]
    [candidate.start() for candidate in candidates]
    [candidate.join(PATIENCE) for candidate in candidates]
    assert sorted(leaders) == ["c0", "c1", "c2"], leaders
    done.set()


def parties(clients):
    one, two, root = clients.new(), clients.new(), clients.root
    members = [one.Party(root + "/p", "ada"), two.Party(root + "/p", "bob")]
    [member.join() for member in members]
    eventually("both are there", lambda: sorted(members[0]) == ["ada", "bob"])
    members[1].leave()
    eventually("one has left", lambda: list(members[0]) == ["ada"])
    shallow = one.ShallowParty(root + "/s", "eve")
    shallow.join()
    assert len(shallow) == 1
    two.stop()
    one.stop()


def counters(clients):
    root = clients.root

    def add(zk):
        counter = zk.Counter(root)
        for _ in range(10):
            counter += 2

    workers = [threading.Thread(target=add, args=(clients.new(),)) for _ in range(3)]
    [worker.start() for worker in workers]
    [worker.join(PATIENCE) for worker in workers]
    assert clients.new().Counter(root).value == 60


def queues(clients):
    zk, other, root = clients.new(), clients.new(), clients.root
    queue = zk.Queue(root + "/q")
    for n, priority in ((1, 100), (2, 50), (3, 100)):
        queue.put(b"%d" % n, priority)
    other.sync(root)
    taken = other.Queue(root + "/q")
    assert [taken.get() for _ in range(4)] == [b"2", b"1", b"3", None]
    locking = zk.LockingQueue(root + "/l")
    locking.put_all([b"a", b"b"])
    other.sync(root)
    reader = other.LockingQueue(root + "/l")
    assert reader.get(PATIENCE) == b"a" and reader.holds_lock() and reader.consume()
    assert reader.get(PATIENCE) == b"b" and reader.release()
    assert locking.get(PATIENCE) == b"b" and locking.consume()


def barriers(clients):
    one, two, root = clients.new(), clients.new(), clients.root
    barrier = one.Barrier(root + "/b")
    barrier.create()
    two.sync(root)
    assert not two.Barrier(root + "/b").wait(0.05)
    passed = threading.Event()
    waiter = threading.Thread(target=lambda: two.Barrier(root + "/b").wait(PATIENCE) and passed.set())
    waiter.start()
    barrier.remove()
    waiter.join(PATIENCE)
    assert passed.is_set()

    inside, together = [], []

    def meet(zk, name):
        double = zk.DoubleBarrier(root + "/d", 2, name)
        double.enter()
        inside.append(name)
        eventually("both are inside", lambda: len(inside) == 2)
        double.leave()
        together.append(name)

    people = [threading.Thread(target=meet, args=(zk, name)) for zk, name in ((one, "1"), (two, "2"))]
    [person.start() for person in people]
    [person.join(PATIENCE) for person in people]
    assert sorted(together) == ["1", "2"]


def partitions(clients):
    one, two, root = clients.new(), clients.new(), clients.root
    shares = {}

    def share(zk, name):
        parts = zk.SetPartitioner(root, set(range(6)), identifier=name, time_boundary=1)
        while not parts.failed:
            if parts.release:
                parts.release_set()
            elif parts.acquired:
                shares[name] = set(parts)
                if len(shares) == 2 and shares["1"] | shares["2"] == set(range(6)) and not shares["1"] & shares["2"]:
                    break
                time.sleep(0.05)
            elif parts.allocating:
                parts.wait_for_acquire(1)

    people = [threading.Thread(target=share, args=(zk, name)) for zk, name in ((one, "1"), (two, "2"))]
    [person.start() for person in people]
    [person.join(PATIENCE) for person in people]
    assert shares["1"] | shares["2"] == set(range(6)) and not shares["1"] & shares["2"], shares


def leases(clients):
    import datetime

    zk, other, root = clients.new(), clients.new(), clients.root
    assert zk.NonBlockingLease(root + "/l", datetime.timedelta(seconds=60))
    other.sync(root)
    assert not other.NonBlockingLease(root + "/l", datetime.timedelta(seconds=60), identifier="other")
    assert other.MultiNonBlockingLease(2, root + "/m", datetime.timedelta(seconds=60))


def words(clients):
    zk = clients.new()
    assert zk.command(b"ruok") == "imok"
    assert zk.command(b"isro") == "rw"
    assert zk.server_version() >= (3, 9), zk.server_version()
    described = zk.command(b"srvr")
    assert "Mode: leader" in described or "Mode: follower" in described, described
    assert "zk_znode_count\t" in zk.command(b"mntr")
    for word in (b"stat", b"conf", b"cons", b"dump", b"envi", b"wchs", b"wchc", b"wchp", b"dirs"):
        assert zk.command(word), word


def restarts(clients):
    zk, other, root = clients.new(), clients.new(), clients.root
    zk.ensure_path(root)
    zk.create(root + "/mine", b"", ephemeral=True)
    zk.restart()
    assert zk.exists(root + "/mine") is None
    zk.create(root + "/mine", b"", ephemeral=True)

    # Another client takes the session and closes it: the first one has expired. It takes it back meanwhile, so that
    # the other may have to try again.
    lost = threading.Event()
    zk.add_listener(lambda state: lost.set() if state == KazooState.LOST else None)
    session = zk.client_id

    def close_it():
        thief = KazooClient(hosts=HOSTS, client_id=session, timeout=8)
        thief.start(timeout=PATIENCE)
        thief.stop()
        thief.close()
        return lost.wait(1)

    eventually("the session is lost", close_it)
    eventually("there is a new session", lambda: zk.connected and zk.client_id[0] != session[0])
    eventually("the node is gone", lambda: other.exists(root + "/mine") is None)


CHECKS = [
    nodes, pipelined, transactions, access, watches, trees, locks, elections, parties, counters, queues, barriers,
    partitions, leases, words, restarts,
]


def main():
    failed = 0
    for check in CHECKS:
        clients = Clients(check.__name__)
        try:
            check(clients)
            print("passed", check.__name__)
        except BaseException:
            failed += 1
            print("failed", check.__name__)
            traceback.print_exc()
        finally:
            clients.close()
    if failed:
        sys.exit(1)
    print("all passed")


main()
