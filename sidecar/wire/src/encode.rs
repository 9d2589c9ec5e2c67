//! Writing records into a buffer.

use bytes::{BufMut as _, BytesMut};

/// Appends the protocol's basic types.
pub trait Encoder {
    /// An `int`.
    fn int(&mut self, value: i32);
    /// A `long`.
    fn long(&mut self, value: i64);
    /// A `boolean`, as 0 or 1.
    fn boolean(&mut self, value: bool);
    /// A `buffer`; `None` is null.
    fn buffer(&mut self, value: Option<&[u8]>);
    /// A `ustring` that is not null.
    fn text(&mut self, value: &str);
    /// The count of a `vector`.
    fn count(&mut self, count: usize);
}

impl Encoder for BytesMut {
    #[inline]
    fn int(&mut self, value: i32) {
        self.put_i32(value);
    }

    #[inline]
    fn long(&mut self, value: i64) {
        self.put_i64(value);
    }

    #[inline]
    fn boolean(&mut self, value: bool) {
        self.put_u8(value.into());
    }

    #[inline]
    fn buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.put_i32(-1),
            Some(bytes) => {
                self.count(bytes.len());
                self.put_slice(bytes);
            }
        }
    }

    #[inline]
    fn text(&mut self, value: &str) {
        self.buffer(Some(value.as_bytes()));
    }

    #[inline]
    fn count(&mut self, count: usize) {
        // Nothing of two gigabytes passes the limits of either side.
        self.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
    }
}
