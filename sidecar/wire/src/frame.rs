//! Frames: a length of four bytes, and as many bytes.

use bytes::{Buf as _, Bytes, BytesMut};

/// ZooKeeper's own limit of a frame (`jute.maxbuffer`), length not counted.
pub const FRAME_BYTES_MAX: usize = 0xf_ffff;

/// A length that no frame has: the stream cannot be followed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Negative.
    #[error("a frame of {0} bytes")]
    Negative(i32),
    /// Beyond the limit.
    #[error("a frame of {bytes} bytes; {max} are allowed")]
    TooLarge {
        /// What the length says.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
}

/// Cuts the first whole frame off `stream`, without its length. `None` if it is not all there yet; no room is made
/// for the rest, for a length alone is no reason to give away memory.
///
/// # Errors
/// If its length is negative or more than `bytes_max`.
pub fn split_frame(stream: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = stream.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let bytes = usize::try_from(length).map_err(|_negative| FrameError::Negative(length))?;
    if bytes > bytes_max {
        return Err(FrameError::TooLarge { bytes, max: bytes_max });
    }
    if stream.len() - 4 < bytes {
        return Ok(None);
    }
    stream.advance(4);
    Ok(Some(stream.split_to(bytes).freeze()))
}

/// Appends a frame whose content `write` appends.
#[inline]
pub fn frame(stream: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = stream.len();
    stream.extend_from_slice(&[0; 4]);
    write(stream);
    let bytes = i32::try_from(stream.len() - start - 4).unwrap_or(i32::MAX);
    stream[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let mut stream = BytesMut::new();
        frame(&mut stream, |content| content.extend_from_slice(b"one"));
        frame(&mut stream, |_empty| {});
        let whole = stream.clone();
        stream.truncate(stream.len() - 1);

        assert_eq!(split_frame(&mut stream, 3).unwrap().unwrap(), "one");
        assert_eq!(split_frame(&mut stream, 3).unwrap(), None, "the second length lacks a byte");
        stream.extend_from_slice(&whole[whole.len() - 1..]);
        assert_eq!(split_frame(&mut stream, 3).unwrap().unwrap(), "");
        assert_eq!(split_frame(&mut stream, 3).unwrap(), None);
    }

    #[test]
    fn impossible_lengths_are_refused_before_their_bytes_come() {
        let refused = |length: i32| split_frame(&mut BytesMut::from(&length.to_be_bytes()[..]), 10).unwrap_err();

        assert_eq!(refused(-1), FrameError::Negative(-1));
        assert_eq!(refused(11), FrameError::TooLarge { bytes: 11, max: 10 });
        assert_eq!(refused(i32::MAX), FrameError::TooLarge { bytes: i32::MAX as usize, max: 10 });
    }
}
