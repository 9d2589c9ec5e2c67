//! Reading records off a frame.

use std::borrow::Cow;

use bytes::Bytes;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame ends before the record.
    #[error("the frame ends in the middle of a record")]
    Truncated,
    /// A negative length other than -1, which means null.
    #[error("a length of {0}")]
    Length(i32),
    /// Null where a value is needed.
    #[error("null where there must be a value")]
    Null,
    /// An operation that is unknown, or not allowed where it stands.
    #[error("operation {0} is not allowed here")]
    Operation(i32),
    /// A value outside its set.
    #[error("{value} is no {what}")]
    Value {
        /// What it should have been.
        what: &'static str,
        /// What it was.
        value: i32,
    },
}

/// The rest of a frame.
#[derive(Debug)]
pub struct Decoder<'a> {
    frame: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads a frame from its beginning.
    #[must_use]
    #[inline]
    pub fn new(frame: &'a Bytes) -> Self {
        Self { frame, rest: frame }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// An `int`.
    ///
    /// # Errors
    /// If the frame ends.
    #[inline]
    pub fn int(&mut self) -> Result<i32, DecodeError> {
        self.chunk().map(i32::from_be_bytes)
    }

    /// A `long`.
    ///
    /// # Errors
    /// If the frame ends.
    #[inline]
    pub fn long(&mut self) -> Result<i64, DecodeError> {
        self.chunk().map(i64::from_be_bytes)
    }

    /// A `boolean`: anything but 0 is true.
    ///
    /// # Errors
    /// If the frame ends.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool, DecodeError> {
        let [byte] = self.chunk()?;
        Ok(byte != 0)
    }

    /// A length or count; -1 is null.
    #[inline]
    fn length(&mut self) -> Result<Option<usize>, DecodeError> {
        match self.int()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_negative| DecodeError::Length(length)),
        }
    }

    /// A `buffer` that may be null, borrowed.
    ///
    /// # Errors
    /// If the frame ends, or on a negative length.
    #[inline]
    pub fn slice(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.length()? {
            None => Ok(None),
            Some(bytes) => self.take(bytes).map(Some),
        }
    }

    /// A `buffer` that may be null, sharing the frame's memory.
    ///
    /// # Errors
    /// As [`Decoder::slice`].
    pub fn buffer(&mut self) -> Result<Option<Bytes>, DecodeError> {
        Ok(self.slice()?.map(|slice| self.frame.slice_ref(slice)))
    }

    /// A `ustring` that may be null. What is not UTF-8 becomes U+FFFD, which no valid path contains.
    ///
    /// # Errors
    /// As [`Decoder::slice`].
    pub fn text(&mut self) -> Result<Option<Cow<'a, str>>, DecodeError> {
        Ok(self.slice()?.map(|slice| match str::from_utf8(slice) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(slice),
        }))
    }

    /// A `ustring` that must not be null.
    ///
    /// # Errors
    /// As [`Decoder::slice`], or if it is null.
    pub fn some_text(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.text()?.ok_or(DecodeError::Null)
    }

    /// A `vector` that may be null, of elements of at least `element_bytes_min` bytes: a count that cannot be is
    /// refused before anything is kept for it.
    ///
    /// # Errors
    /// If the frame ends, on a negative count, or what `element` says.
    pub fn vector<T>(
        &mut self,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length()? else { return Ok(None) };
        if count.saturating_mul(element_bytes_min) > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }
}
