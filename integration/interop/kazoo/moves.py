"""A session that moves: moves.py HOST:PORT,... It is told when its server was killed, and says when it has moved.

kazoo does not set its watches again: DataWatch and ChildrenWatch read once more after a reconnect, and must then see
what others did meanwhile.
"""

import sys
import time

from kazoo.client import KazooClient, KazooState

HOSTS = sys.argv[1]
PATIENCE = 120


def eventually(what, condition):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except Exception as error:
            last = error
        assert time.monotonic() < deadline, "waited in vain until " + what
        time.sleep(0.02)


def main():
    zk, other = [KazooClient(hosts=HOSTS, timeout=10, randomize_hosts=True) for _ in range(2)]
    for client in (zk, other):
        client.start(timeout=PATIENCE)
    states, values, families = [], [], []
    zk.add_listener(lambda state: states.append(state))
    zk.ensure_path("/moves")
    zk.create("/moves/mine", b"", ephemeral=True)
    zk.DataWatch("/moves", lambda data, stat: values.append(data))
    zk.ChildrenWatch("/moves", lambda children: families.append(sorted(children)))
    session = zk.client_id[0]
    print("ready")
    for line in sys.stdin:
        word = line.split()
        if word[0] == "where":
            eventually("it is connected", lambda: zk.connected)
            print("at", zk._connection._socket.getpeername()[1])
        elif word[0] == "killed":
            mark = word[1].encode()
            eventually("somebody writes", lambda: other.retry(other.set, "/moves", mark))
            eventually("somebody creates", lambda: other.retry(other.ensure_path, "/moves/child-" + word[1]))
            eventually("the value is seen", lambda: values and values[-1] == mark)
            eventually("the child is seen", lambda: "child-" + word[1] in families[-1])
            eventually("it is connected", lambda: zk.connected)
            assert zk.client_id[0] == session, "the session is another one"
            assert KazooState.LOST not in states, states
            owner = other.retry(other.get, "/moves/mine")[1].ephemeralOwner
            assert owner == session, "the ephemeral node belongs to somebody else"
            print("moved")
        else:
            break
    zk.stop()
    eventually("the ephemeral node is gone", lambda: other.retry(other.exists, "/moves/mine") is None)
    other.stop()


main()
