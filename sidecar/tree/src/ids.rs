//! Numbers that must not be confused with each other.

use std::fmt;

/// The place of a command among all commands ever applied, counted from 1; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zxid(pub u64);

/// A session. Never 0; the top byte is the member that opened it, the rest the zxid at which it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The member that opened it; 0 is none of the ensemble.
    #[must_use]
    pub fn member(self) -> MemberId {
        MemberId((self.0 >> 56) as u8)
    }
}

/// A member of the ensemble, 1 to 254.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u8);

impl Zxid {
    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl SessionId {
    /// No session: the author of the members' own commands.
    pub const NONE: Self = Self(0);

    /// The id of the session that `member` opens at `zxid`: unique, because the zxid is.
    #[must_use]
    pub fn opened_by(member: MemberId, zxid: Zxid) -> Self {
        Self(u64::from(member.0) << 56 | zxid.0 & 0x00ff_ffff_ffff_ffff)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As the SDK and the doors print it, so that an id of a log can be given to a command.
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
