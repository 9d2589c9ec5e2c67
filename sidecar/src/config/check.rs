//! What must hold between settings. Each rule is one sentence to whoever set them.

use std::collections::BTreeMap;

use quorate_tree::MemberId;

use super::{Config, address::Address, limits};

/// A relation that does not hold: the member must not start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Ids go from 1 to 254.
    #[error("member ids go from 1 to 254, not {id}")]
    Id {
        /// The one given.
        id: MemberId,
    },
    /// The list of voters does not name this member.
    #[error(
        "member {id} does not stand in the ensemble {voters}: give --id one of its ids, or add the member to the list"
    )]
    NotInEnsemble {
        /// This member.
        id: MemberId,
        /// The list.
        voters: String,
    },
    /// Too many voters.
    #[error("{voters} voters are too many: an ensemble has 3, 5 or at most {} of them", limits::VOTERS_MAX)]
    TooManyVoters {
        /// How many there are.
        voters: usize,
    },
    /// Two members cannot be found at one address.
    #[error("members {one} and {other} have the same address {address}")]
    SharedPeerAddress {
        /// One of them.
        one: MemberId,
        /// The other one.
        other: MemberId,
        /// Their address.
        address: Address,
    },
    /// The others cannot find a member at port 0.
    #[error("member {id} has port 0 in the ensemble: the others must know where to find it")]
    NoPeerPort {
        /// Which one.
        id: MemberId,
    },
    /// Two doors cannot share an address.
    #[error("--{one} and --{other} are both {address}")]
    SharedDoor {
        /// One door.
        one: &'static str,
        /// The other one.
        other: &'static str,
        /// Their address.
        address: Address,
    },
    /// A door in the open.
    #[error(
        "--{door} {address} can be reached from other machines, and there is no TLS yet: listen on loopback, or say \
         --insecure if the network is trusted"
    )]
    Exposed {
        /// Which door.
        door: &'static str,
        /// Where it would listen.
        address: Address,
    },
    /// A number out of its range.
    #[error("--{flag} must be from {min} to {max}, not {given}")]
    OutOfRange {
        /// Which flag.
        flag: &'static str,
        /// Given.
        given: u128,
        /// Smallest.
        min: u64,
        /// Greatest.
        max: u64,
    },
}

/// A relation that is probably not meant: the member starts and says so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckWarning {
    /// One voter.
    #[error("one voter: nothing survives the loss of this member; an ensemble has 3, 5 or 7")]
    Alone,
    /// Two voters.
    #[error(
        "two voters: the ensemble stops when one of them is away, and for good when one loses its disk; an ensemble has \
         3, 5 or 7"
    )]
    Two,
    /// No door for clients.
    #[error(
        "this member has no door for clients: --client-addr opens one for gRPC, --zookeeper-addr or the file's clientPort \
         one for clients of ZooKeeper"
    )]
    NoClients,
    /// An even number of voters.
    #[error("{voters} voters survive no more losses than {} would, and each write waits for one more", voters - 1)]
    Even {
        /// How many there are.
        voters: usize,
    },
    /// Found in one place, listening in another.
    #[error("the ensemble finds this member at {found}, but its peer door listens on {listens}")]
    FoundElsewhere {
        /// What the list says.
        found: Address,
        /// What --peer-addr says.
        listens: Address,
    },
    /// A shortest session may not outlive an election.
    #[error(
        "--election-timeout-ms {election_ms} is not below the shortest session timeout ({shortest_ms} ms): sessions with \
         short timeouts may lose their connection at every change of the leader"
    )]
    SlowElection {
        /// The election timeout.
        election_ms: u128,
        /// The shortest session timeout.
        shortest_ms: u128,
    },
    /// Open to other machines without TLS.
    #[error("--{door} {address} can be reached from other machines without TLS")]
    Exposed {
        /// Which door.
        door: &'static str,
        /// Where it listens.
        address: Address,
    },
}

impl Config {
    /// Refuses what cannot work, and tells what is probably not meant.
    pub fn check(&self) -> Result<Vec<CheckWarning>, CheckError> {
        self.check_ranges()?;
        let mut warnings = self.check_voters()?;
        warnings.extend(self.check_doors()?);
        warnings.extend(self.check_timing());
        Ok(warnings)
    }

    fn check_ranges(&self) -> Result<(), CheckError> {
        if !(1..=254).contains(&self.id.0) {
            return Err(CheckError::Id { id: self.id });
        }
        let range = |flag, given: std::time::Duration, min, max| match given.as_millis() {
            given if (u128::from(min)..=u128::from(max)).contains(&given) => Ok(()),
            given => Err(CheckError::OutOfRange { flag, given, min, max }),
        };
        range("tick-ms", self.tick, limits::TICK_MS_MIN, limits::TICK_MS_MAX)?;
        let (min, max) = (limits::ELECTION_TIMEOUT_MS_MIN, limits::ELECTION_TIMEOUT_MS_MAX);
        range("election-timeout-ms", self.election_timeout, min, max)?;
        range("reap-period-ms", self.reap_period, limits::REAP_PERIOD_MS_MIN, limits::REAP_PERIOD_MS_MAX)?;
        let timeouts = self.session_timeouts();
        let (min, max) = (limits::SESSION_TIMEOUT_MS_MIN, limits::SESSION_TIMEOUT_MS_MAX);
        range("session-timeout-min-ms", *timeouts.start(), min, max)?;
        // The one that is not given follows the tick.
        let min = u64::try_from(timeouts.start().as_millis()).unwrap_or(max);
        range("session-timeout-max-ms", *timeouts.end(), min, max)?;
        let range = |flag, given: u32, min: u64, max: u32| match u64::from(given) {
            given if (min..=u64::from(max)).contains(&given) => Ok(()),
            given => Err(CheckError::OutOfRange { flag, given: given.into(), min, max: max.into() }),
        };
        range("sessions-per-second", self.sessions_per_second, 0, limits::SESSIONS_PER_SECOND_MAX)?;
        range("sessions-burst", self.sessions_burst.unwrap_or(1), 1, limits::SESSIONS_BURST_MAX)
    }

    fn check_voters(&self) -> Result<Vec<CheckWarning>, CheckError> {
        let voters = &self.ensemble;
        let Some(found) = voters.get(self.id) else {
            return Err(CheckError::NotInEnsemble { id: self.id, voters: voters.to_string() });
        };
        if voters.len() > limits::VOTERS_MAX {
            return Err(CheckError::TooManyVoters { voters: voters.len() });
        }
        let mut seen = BTreeMap::new();
        for (id, address) in voters.iter() {
            if address.port() == 0 {
                return Err(CheckError::NoPeerPort { id });
            }
            if let Some(one) = seen.insert(address, id) {
                return Err(CheckError::SharedPeerAddress { one, other: id, address: address.clone() });
            }
        }

        let mut warnings = Vec::new();
        match voters.len() {
            1 => warnings.push(CheckWarning::Alone),
            2 => warnings.push(CheckWarning::Two),
            n if n % 2 == 0 => warnings.push(CheckWarning::Even { voters: n }),
            _ => {}
        }
        let listens = &self.peer_addr;
        let elsewhere = found.port() != listens.port() || listens.is_loopback() && !found.is_loopback();
        if listens.port() != 0 && elsewhere {
            warnings.push(CheckWarning::FoundElsewhere { found: found.clone(), listens: listens.clone() });
        }
        Ok(warnings)
    }

    fn check_doors(&self) -> Result<Vec<CheckWarning>, CheckError> {
        let doors = [
            ("client-addr", self.client_addr.as_ref()),
            ("peer-addr", Some(&self.peer_addr)),
            ("admin-addr", self.admin_addr.as_ref()),
            ("zookeeper-addr", self.zookeeper_addr.as_ref()),
        ];
        let doors = doors.into_iter().filter_map(|(door, address)| Some((door, address?)));
        let mut seen = BTreeMap::new();
        let mut warnings = Vec::new();
        if self.client_addr.is_none() && self.zookeeper_addr.is_none() {
            warnings.push(CheckWarning::NoClients);
        }
        for (door, address) in doors {
            if address.port() != 0
                && let Some(one) = seen.insert(address, door)
            {
                return Err(CheckError::SharedDoor { one, other: door, address: address.clone() });
            }
            match (address.is_loopback(), self.insecure) {
                (true, _) => {}
                (false, true) => warnings.push(CheckWarning::Exposed { door, address: address.clone() }),
                (false, false) => return Err(CheckError::Exposed { door, address: address.clone() }),
            }
        }
        Ok(warnings)
    }

    fn check_timing(&self) -> Option<CheckWarning> {
        let election_ms = self.election_timeout.as_millis();
        let shortest_ms = self.session_timeouts().start().as_millis();
        (election_ms >= shortest_ms).then_some(CheckWarning::SlowElection { election_ms, shortest_ms })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn three() -> Config {
        let voters = "1=127.0.0.1:7201,2=127.0.0.1:7202,3=127.0.0.1:7203".parse().unwrap();
        Config::new(MemberId(1), "data", voters)
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Config), told: &str) {
        let mut config = three();
        change(&mut config);

        assert_eq!(config.check().unwrap_err().to_string(), told);
    }

    #[track_caller]
    fn warned(change: impl FnOnce(&mut Config), told: &[&str]) {
        let mut config = three();
        change(&mut config);

        let warnings: Vec<_> = config.check().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(warnings, told);
    }

    #[test]
    fn three_members_on_loopback_need_no_remark() {
        warned(|_| {}, &[]);
    }

    #[test]
    fn a_member_must_stand_in_its_ensemble() {
        refused(
            |c| c.id = MemberId(4),
            "member 4 does not stand in the ensemble 1=127.0.0.1:7201,2=127.0.0.1:7202,3=127.0.0.1:7203: give --id one \
             of its ids, or add the member to the list",
        );
        refused(|c| c.id = MemberId(255), "member ids go from 1 to 254, not 255");
    }

    #[test]
    fn the_number_of_voters_is_odd_and_small() {
        let voters = |n: u16| (1..=n).map(|i| format!("{i}=127.0.0.1:{}", 7200 + i)).collect::<Vec<_>>().join(",");

        warned(
            |c| c.ensemble = voters(1).parse().unwrap(),
            &["one voter: nothing survives the loss of this member; an ensemble has 3, 5 or 7"],
        );
        warned(
            |c| c.ensemble = voters(4).parse().unwrap(),
            &["4 voters survive no more losses than 3 would, and each write waits for one more"],
        );
        warned(
            |c| c.ensemble = voters(2).parse().unwrap(),
            &[
                "two voters: the ensemble stops when one of them is away, and for good when one loses its disk; an ensemble \
               has 3, 5 or 7",
            ],
        );
        warned(|c| c.ensemble = voters(7).parse().unwrap(), &[]);
        refused(
            |c| c.ensemble = voters(8).parse().unwrap(),
            "8 voters are too many: an ensemble has 3, 5 or at most 7 of them",
        );
    }

    #[test]
    fn sessions_may_come_at_any_rate_that_lets_somebody_in() {
        warned(|c| (c.sessions_per_second, c.sessions_burst) = (1, Some(1)), &[]);
        refused(|c| c.sessions_burst = Some(0), "--sessions-burst must be from 1 to 1000000, not 0");
        refused(|c| c.sessions_per_second = 100_001, "--sessions-per-second must be from 0 to 100000, not 100001");
    }

    #[test]
    fn addresses_are_not_shared() {
        refused(
            |c| c.ensemble = "1=127.0.0.1:7201,2=127.0.0.1:7201".parse().unwrap(),
            "members 1 and 2 have the same address 127.0.0.1:7201",
        );
        refused(|c| c.admin_addr = c.client_addr.clone(), "--client-addr and --admin-addr are both 127.0.0.1:7101");
        refused(
            |c| c.ensemble = "1=127.0.0.1:7201,2=127.0.0.1:0".parse().unwrap(),
            "member 2 has port 0 in the ensemble: the others must know where to find it",
        );
        warned(
            |c| {
                c.client_addr = Some(Address::loopback(0));
                c.admin_addr = Some(Address::loopback(0));
            },
            &[],
        );
    }

    #[test]
    fn a_door_in_the_open_must_be_wanted() {
        refused(
            |c| c.client_addr = Some("0.0.0.0:7101".parse().unwrap()),
            "--client-addr 0.0.0.0:7101 can be reached from other machines, and there is no TLS yet: listen on \
             loopback, or say --insecure if the network is trusted",
        );
        warned(
            |c| {
                c.client_addr = Some("0.0.0.0:7101".parse().unwrap());
                c.insecure = true;
            },
            &["--client-addr 0.0.0.0:7101 can be reached from other machines without TLS"],
        );
    }

    #[test]
    fn a_peer_door_the_others_do_not_look_at_is_remarked() {
        warned(
            |c| c.peer_addr = Address::loopback(7299),
            &["the ensemble finds this member at 127.0.0.1:7201, but its peer door listens on 127.0.0.1:7299"],
        );
        warned(
            |c| c.ensemble = "1=10.0.0.1:7201,2=10.0.0.2:7201,3=10.0.0.3:7201".parse().unwrap(),
            &["the ensemble finds this member at 10.0.0.1:7201, but its peer door listens on 127.0.0.1:7201"],
        );
    }

    #[test]
    fn timings_stay_in_their_ranges_and_in_relation() {
        refused(|c| c.tick = Duration::from_millis(1), "--tick-ms must be from 10 to 60000, not 1");
        refused(
            |c| c.election_timeout = Duration::from_secs(61),
            "--election-timeout-ms must be from 50 to 60000, not 61000",
        );
        warned(
            |c| c.tick = Duration::from_millis(200),
            &["--election-timeout-ms 600 is not below the shortest session timeout (400 ms): sessions with short \
                timeouts may lose their connection at every change of the leader"],
        );
    }
}
