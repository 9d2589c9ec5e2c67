//! The operations a client can name.

/// An operation code that a client may send at top level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum OpCode {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    GetAcl = 6,
    SetAcl = 7,
    GetChildren = 8,
    Sync = 9,
    Ping = 11,
    GetChildren2 = 12,
    Multi = 14,
    Create2 = 15,
    Reconfig = 16,
    CheckWatches = 17,
    RemoveWatches = 18,
    CreateContainer = 19,
    CreateTtl = 21,
    MultiRead = 22,
    Auth = 100,
    SetWatches = 101,
    Sasl = 102,
    GetEphemerals = 103,
    GetAllChildrenNumber = 104,
    SetWatches2 = 105,
    AddWatch = 106,
    WhoAmI = 107,
    CloseSession = -11,
}

impl OpCode {
    /// Every operation, in the order of their codes, but the one that ends a session last.
    pub const ALL: [Self; 28] = [
        Self::Create,
        Self::Delete,
        Self::Exists,
        Self::GetData,
        Self::SetData,
        Self::GetAcl,
        Self::SetAcl,
        Self::GetChildren,
        Self::Sync,
        Self::Ping,
        Self::GetChildren2,
        Self::Multi,
        Self::Create2,
        Self::Reconfig,
        Self::CheckWatches,
        Self::RemoveWatches,
        Self::CreateContainer,
        Self::CreateTtl,
        Self::MultiRead,
        Self::Auth,
        Self::SetWatches,
        Self::Sasl,
        Self::GetEphemerals,
        Self::GetAllChildrenNumber,
        Self::SetWatches2,
        Self::AddWatch,
        Self::WhoAmI,
        Self::CloseSession,
    ];

    /// The operation of a code. `None` for unknown ones and for those that only servers may use (createSession,
    /// deleteContainer, error) or that have no meaning alone (check): a server answers them all alike.
    #[must_use]
    pub fn of(code: i32) -> Option<Self> {
        Some(match code {
            1 => Self::Create,
            2 => Self::Delete,
            3 => Self::Exists,
            4 => Self::GetData,
            5 => Self::SetData,
            6 => Self::GetAcl,
            7 => Self::SetAcl,
            8 => Self::GetChildren,
            9 => Self::Sync,
            11 => Self::Ping,
            12 => Self::GetChildren2,
            14 => Self::Multi,
            15 => Self::Create2,
            16 => Self::Reconfig,
            17 => Self::CheckWatches,
            18 => Self::RemoveWatches,
            19 => Self::CreateContainer,
            21 => Self::CreateTtl,
            22 => Self::MultiRead,
            100 => Self::Auth,
            101 => Self::SetWatches,
            102 => Self::Sasl,
            103 => Self::GetEphemerals,
            104 => Self::GetAllChildrenNumber,
            105 => Self::SetWatches2,
            106 => Self::AddWatch,
            107 => Self::WhoAmI,
            -11 => Self::CloseSession,
            _ => return None,
        })
    }

    /// Its code.
    #[must_use]
    pub fn code(self) -> i32 {
        self as i32
    }

    /// Whether it changes something, for everybody to see, where it succeeds.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Create2
                | Self::CreateContainer
                | Self::CreateTtl
                | Self::Delete
                | Self::SetData
                | Self::SetAcl
                | Self::Multi
                | Self::Reconfig
                | Self::CloseSession
        )
    }

    /// The four letters under which servers show it as a connection's last operation.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Create => "CREA",
            Self::Delete => "DELE",
            Self::Exists => "EXIS",
            Self::GetData => "GETD",
            Self::SetData => "SETD",
            Self::GetAcl => "GETA",
            Self::SetAcl => "SETA",
            Self::GetChildren | Self::GetChildren2 => "GETC",
            Self::Sync => "SYNC",
            Self::Ping => "PING",
            Self::Multi => "MULT",
            Self::Create2 => "CRE2",
            Self::Reconfig => "RECO",
            Self::CheckWatches => "CHKW",
            Self::RemoveWatches => "REMW",
            Self::CreateContainer => "CREC",
            Self::CreateTtl => "CRET",
            Self::MultiRead => "MULR",
            Self::Auth => "AUTH",
            Self::SetWatches => "SETW",
            Self::Sasl => "SASL",
            Self::GetEphemerals => "GETE",
            Self::GetAllChildrenNumber => "GACN",
            Self::SetWatches2 => "STW2",
            Self::AddWatch => "ADDW",
            Self::WhoAmI => "WHOA",
            Self::CloseSession => "CLOS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_code() {
        for op in OpCode::ALL {
            assert_eq!(OpCode::of(op.code()), Some(op));
        }
    }

    #[test]
    fn operations_of_servers_and_unknown_ones_are_not() {
        for code in [0, 10, 13, 20, 23, 99, 108, 500, 999, -1, -10, -12, i32::MIN, i32::MAX] {
            assert_eq!(OpCode::of(code), None, "{code}");
        }
    }
}
