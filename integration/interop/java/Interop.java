import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.regex.*;
import java.util.stream.*;
import org.apache.curator.framework.*;
import org.apache.curator.framework.api.transaction.*;
import org.apache.curator.framework.recipes.cache.*;
import org.apache.curator.framework.recipes.leader.*;
import org.apache.curator.framework.recipes.locks.*;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryForever;
import org.apache.curator.x.discovery.*;
import org.apache.zookeeper.*;
import org.apache.zookeeper.data.Stat;

/**
 * Curator and ZooKeeper's own Java client at work.
 *
 * Interop check CONNECT   runs Curator's recipes; says "passed NAME" for each, and "all passed"
 * Interop serve CONNECT   does what it is told, a line each, and answers a line each
 */
public class Interop {
    static final long PATIENCE_S = 60;

    static CuratorFramework client(String connect) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(connect, 10_000, 15_000, new RetryForever(100));
        client.start();
        require(client.blockUntilConnected((int) PATIENCE_S, TimeUnit.SECONDS), "no connection to " + connect);
        return client;
    }

    static void require(boolean condition, String what) {
        if (!condition) throw new IllegalStateException(what);
    }

    interface Condition { boolean holds() throws Exception; }

    static void eventually(String what, Condition condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_S);
        while (!condition.holds()) {
            require(System.nanoTime() < deadline, "waited in vain until " + what);
            Thread.sleep(10);
        }
    }

    // --- check: Curator alone

    static void mutex(String connect) throws Exception {
        List<CuratorFramework> clients = new ArrayList<>();
        AtomicInteger inside = new AtomicInteger(), overlaps = new AtomicInteger(), rounds = new AtomicInteger();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            CuratorFramework client = client(connect);
            clients.add(client);
            Thread thread = new Thread(() -> {
                try {
                    InterProcessMutex mutex = new InterProcessMutex(client, "/java/mutex");
                    for (int n = 0; n < 20; n++) {
                        require(mutex.acquire(PATIENCE_S, TimeUnit.SECONDS), "not acquired");
                        if (inside.incrementAndGet() != 1) overlaps.incrementAndGet();
                        inside.decrementAndGet();
                        mutex.release();
                        rounds.incrementAndGet();
                    }
                } catch (Exception error) {
                    error.printStackTrace();
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) thread.join();
        require(rounds.get() == 60 && overlaps.get() == 0, rounds + " rounds, " + overlaps + " overlaps");
        InterProcessReadWriteLock lock = new InterProcessReadWriteLock(clients.get(0), "/java/rw");
        lock.writeLock().acquire();
        lock.readLock().acquire();
        lock.writeLock().release();
        require(!new InterProcessReadWriteLock(clients.get(1), "/java/rw").writeLock().acquire(50, TimeUnit.MILLISECONDS), "both");
        lock.readLock().release();
        for (CuratorFramework client : clients) client.close();
    }

    static void latch(String connect) throws Exception {
        try (CuratorFramework one = client(connect); CuratorFramework two = client(connect)) {
            LeaderLatch first = new LeaderLatch(one, "/java/latch", "one"), second = new LeaderLatch(two, "/java/latch", "two");
            first.start();
            require(first.await(PATIENCE_S, TimeUnit.SECONDS), "nobody leads");
            second.start();
            eventually("two take part", () -> second.getParticipants().size() == 2);
            require(!second.hasLeadership() && second.getLeader().getId().equals("one"), "the wrong one leads");
            first.close();
            require(second.await(PATIENCE_S, TimeUnit.SECONDS), "nobody follows");
            second.close();
        }
    }

    static void nodes(String connect) throws Exception {
        try (CuratorFramework one = client(connect); CuratorFramework two = client(connect)) {
            PersistentNode node = new PersistentNode(one, CreateMode.EPHEMERAL, false, "/java/node/mine", "here".getBytes());
            node.start();
            require(node.waitForInitialCreate(PATIENCE_S, TimeUnit.SECONDS), "not created");
            two.sync().forPath("/java/node");
            two.delete().forPath("/java/node/mine");
            eventually("it is back", () -> one.checkExists().forPath("/java/node/mine") != null);
            node.close();
            require(one.create().withTtl(100_000).creatingParentsIfNeeded().withMode(CreateMode.PERSISTENT_WITH_TTL)
                .forPath("/java/ttl") != null, "no ttl");
            one.create().withMode(CreateMode.CONTAINER).forPath("/java/container");
            require(one.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL)
                .forPath("/java/container/s-").endsWith("0000000000"), "numbers");
        }
    }

    static void caches(String connect) throws Exception {
        try (CuratorFramework one = client(connect); CuratorFramework two = client(connect)) {
            one.create().creatingParentsIfNeeded().forPath("/java/cache/a", "1".getBytes());
            two.sync().forPath("/java/cache");
            TreeCache tree = new TreeCache(one, "/java/cache");
            tree.start();
            CuratorCache cache = CuratorCache.build(two, "/java/cache");
            cache.start();
            eventually("the cache is filled", () -> cache.get("/java/cache/a").isPresent());
            eventually("the tree is filled", () -> tree.getCurrentData("/java/cache/a") != null);
            for (int n = 0; n < 50; n++) {
                one.create().forPath("/java/cache/n" + n, new byte[] {(byte) n});
                one.setData().forPath("/java/cache/a", ("v" + n).getBytes());
            }
            one.delete().forPath("/java/cache/n7");
            Condition same = () -> tree.getCurrentChildren("/java/cache").size() == 50 && cache.size() == 51
                && new String(tree.getCurrentData("/java/cache/a").getData()).equals("v49")
                && new String(cache.get("/java/cache/a").get().getData()).equals("v49");
            eventually("both have seen everything", same);
            tree.close();
            cache.close();
        }
    }

    static void members(String connect) throws Exception {
        try (CuratorFramework one = client(connect)) {
            eventually("the members are known", () -> one.getCurrentConfig().getAllMembers().size() == 3);
        }
    }

    static void counts(String connect) throws Exception {
        try (CuratorFramework one = client(connect); CuratorFramework two = client(connect)) {
            SharedCount first = new SharedCount(one, "/java/count", 7), second = new SharedCount(two, "/java/count", 7);
            first.start();
            second.start();
            first.setCount(8);
            eventually("the other sees it", () -> second.getCount() == 8);
            require(second.trySetCount(second.getVersionedValue(), 9), "not set");
            first.close();
            second.close();
            DistributedAtomicLong number = new DistributedAtomicLong(one, "/java/long", new RetryForever(10));
            DistributedAtomicLong other = new DistributedAtomicLong(two, "/java/long", new RetryForever(10));
            for (int n = 0; n < 10; n++) {
                require(number.increment().succeeded() && other.add(2L).succeeded(), "not added");
            }
            one.sync().forPath("/java/long");
            require(number.get().postValue() == 30, "lost some");
        }
    }

    static void transactions(String connect) throws Exception {
        try (CuratorFramework one = client(connect)) {
            one.create().creatingParentsIfNeeded().forPath("/java/multi");
            TransactionOp op = one.transactionOp();
            List<CuratorTransactionResult> results = one.transaction().forOperations(
                op.create().forPath("/java/multi/a", "x".getBytes()),
                op.setData().withVersion(0).forPath("/java/multi/a", "y".getBytes()),
                op.check().withVersion(1).forPath("/java/multi/a"),
                op.create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath("/java/multi/s-"),
                op.delete().forPath("/java/multi/a"));
            require(results.size() == 5 && results.get(3).getResultPath().equals("/java/multi/s-0000000001"), "results");
            require(results.get(1).getResultStat().getVersion() == 1, "stat");
            try {
                one.transaction().forOperations(op.create().forPath("/java/multi/b"), op.check().forPath("/java/none"));
                throw new IllegalStateException("not refused");
            } catch (KeeperException.NoNodeException refused) {
                require(refused.getResults().size() == 2, "results of a refusal");
            }
            require(one.checkExists().forPath("/java/multi/b") == null, "half of it was done");
        }
    }

    static void discovery(String connect) throws Exception {
        try (CuratorFramework one = client(connect); CuratorFramework two = client(connect)) {
            ServiceInstance<Void> instance =
                ServiceInstance.<Void>builder().name("orders").id("o1").address("10.0.0.1").port(80).build();
            ServiceDiscovery<Void> here = ServiceDiscoveryBuilder.builder(Void.class).client(one)
                .basePath("/java/services").thisInstance(instance).build();
            ServiceDiscovery<Void> there =
                ServiceDiscoveryBuilder.builder(Void.class).client(two).basePath("/java/services").build();
            here.start();
            there.start();
            ServiceProvider<Void> provider = there.serviceProviderBuilder().serviceName("orders").build();
            provider.start();
            eventually("it is found", () -> provider.getInstance() != null && provider.getInstance().getPort() == 80);
            here.unregisterService(instance);
            eventually("it is gone", () -> provider.getInstance() == null);
            provider.close();
            here.close();
            there.close();
        }
    }

    interface Check { void run(String connect) throws Exception; }

    static void check(String connect) throws Exception {
        Map<String, Check> checks = new LinkedHashMap<>();
        checks.put("mutex", Interop::mutex);
        checks.put("latch", Interop::latch);
        checks.put("nodes", Interop::nodes);
        checks.put("caches", Interop::caches);
        checks.put("members", Interop::members);
        checks.put("counts", Interop::counts);
        checks.put("transactions", Interop::transactions);
        checks.put("discovery", Interop::discovery);
        boolean failed = false;
        for (Map.Entry<String, Check> check : checks.entrySet()) {
            try {
                check.getValue().run(connect);
                System.out.println("passed " + check.getKey());
            } catch (Throwable error) {
                failed = true;
                System.out.println("failed " + check.getKey());
                error.printStackTrace();
            }
        }
        if (failed) System.exit(1);
        System.out.println("all passed");
    }

    // --- serve: one client that does what it is told

    static void serve(String connect) throws Exception {
        CuratorFramework client = client(connect);
        AtomicBoolean lost = new AtomicBoolean();
        client.getConnectionStateListenable().addListener((c, state) -> { if (state == ConnectionState.LOST) lost.set(true); });
        Map<String, InterProcessMutex> locks = new HashMap<>();
        Map<String, LeaderLatch> latches = new HashMap<>();
        Map<String, ServiceDiscovery<Void>> discoveries = new HashMap<>();
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        Watcher watcher = event -> {
            if (event.getType() != Watcher.Event.EventType.None) events.add(event.getType() + " " + event.getPath());
        };
        CuratorCache[] cache = new CuratorCache[1];
        System.out.println("ready");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = input.readLine()) != null; ) {
            String[] word = line.split(" ");
            ZooKeeper zk = client.getZookeeperClient().getZooKeeper();
            switch (word[0]) {
                case "lock":
                    locks.computeIfAbsent(word[1], path -> new InterProcessMutex(client, path));
                    require(locks.get(word[1]).acquire(PATIENCE_S, TimeUnit.SECONDS), "not acquired");
                    System.out.println("locked");
                    break;
                case "try":
                    client.sync().forPath("/");
                    System.out.println(new InterProcessMutex(client, word[1]).acquire(0, TimeUnit.SECONDS) ? "locked" : "taken");
                    break;
                case "unlock":
                    locks.get(word[1]).release();
                    System.out.println("unlocked");
                    break;
                case "participants":
                    client.sync().forPath("/");
                    System.out.println("participants " + new InterProcessMutex(client, word[1]).getParticipantNodes().size());
                    break;
                case "latch":
                    LeaderLatch latch = new LeaderLatch(client, word[1], word[2]);
                    latches.put(word[1], latch);
                    latch.start();
                    System.out.println("joined");
                    break;
                case "leads":
                    require(latches.get(word[1]).await(PATIENCE_S, TimeUnit.SECONDS), "does not lead");
                    System.out.println("leads");
                    break;
                case "leader":
                    LeaderLatch asked = latches.get(word[1]);
                    client.sync().forPath("/");
                    System.out.println("leader " + asked.getLeader().getId() + " leads " + asked.hasLeadership() + " of "
                        + asked.getParticipants().stream().map(Participant::getId).sorted().collect(Collectors.joining(",")));
                    break;
                case "leave":
                    latches.remove(word[1]).close();
                    System.out.println("left");
                    break;
                case "register": {
                    ServiceDiscovery<Void> discovery = discovery(client, discoveries, word[1]);
                    discovery.registerService(ServiceInstance.<Void>builder().name(word[2]).id(word[3])
                        .address(word[4]).port(Integer.parseInt(word[5])).build());
                    System.out.println("registered");
                    break;
                }
                case "find": {
                    ServiceDiscovery<Void> discovery = discovery(client, discoveries, word[1]);
                    eventually("it is found", () -> {
                        client.sync().forPath("/");
                        return !discovery.queryForInstances(word[2]).isEmpty();
                    });
                    System.out.println("found " + discovery.queryForInstances(word[2]).stream()
                        .map(i -> i.getId() + "@" + i.getAddress() + ":" + i.getPort()).sorted().collect(Collectors.joining(",")));
                    break;
                }
                case "watch":
                    client.sync().forPath("/");
                    zk.exists(word[1], watcher);
                    System.out.println("watching");
                    break;
                case "event":
                    String event = events.poll(PATIENCE_S, TimeUnit.SECONDS);
                    require(event != null, "no event");
                    System.out.println("event " + event);
                    break;
                case "create":
                    client.create().creatingParentsIfNeeded().withMode(CreateMode.valueOf(word[2])).forPath(word[1], new byte[0]);
                    System.out.println("created");
                    break;
                case "delete":
                    client.delete().forPath(word[1]);
                    System.out.println("deleted");
                    break;
                case "follow":
                    cache[0] = CuratorCache.build(client, word[1]);
                    cache[0].start();
                    eventually("it is followed", () -> cache[0].get(word[1]).isPresent());
                    System.out.println("following");
                    break;
                case "see":
                    eventually("it is seen", () -> cache[0].get(word[1]).map(d -> new String(d.getData())).orElse("").equals(word[2]));
                    System.out.println("seen");
                    break;
                case "where": {
                    eventually("it is connected", () -> client.getZookeeperClient().isConnected());
                    Matcher matcher = Pattern.compile("remoteserver:[^ ]*:(\\d+)").matcher(zk.toString());
                    require(matcher.find(), zk.toString());
                    System.out.println("at " + matcher.group(1));
                    break;
                }
                case "session":
                    require(!lost.get(), "the session was lost");
                    System.out.println("session " + zk.getSessionId());
                    break;
                default:
                    throw new IllegalArgumentException(line);
                case "end":
                    for (LeaderLatch one : latches.values()) one.close();
                    for (ServiceDiscovery<Void> one : discoveries.values()) one.close();
                    client.close();
                    System.out.println("ended");
                    return;
            }
        }
    }

    static ServiceDiscovery<Void> discovery(CuratorFramework client, Map<String, ServiceDiscovery<Void>> all, String base)
        throws Exception {
        ServiceDiscovery<Void> discovery = all.get(base);
        if (discovery == null) {
            discovery = ServiceDiscoveryBuilder.builder(Void.class).client(client).basePath(base).build();
            discovery.start();
            all.put(base, discovery);
        }
        return discovery;
    }

    public static void main(String[] arguments) throws Exception {
        try {
            if (arguments[0].equals("check")) check(arguments[1]);
            else serve(arguments[1]);
            System.exit(0);
        } catch (Throwable error) {
            error.printStackTrace();
            System.out.println("FAILED " + error);
            System.exit(1);
        }
    }
}
