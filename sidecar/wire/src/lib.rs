//! Pure codec of the ZooKeeper client protocol. It arrives with the ZooKeeper door.
