//! The two fixed buffers of a session.
//!
//! Both are set aside once, at connect, and never grow (invariant I6). [`ReadBuf`] takes what the
//! stream gives and hands out whole frames; [`WriteBuf`] takes whole messages and hands out what
//! is still to be sent. A message that does not fit is refused as a whole: half a message is never
//! left behind.

use std::fmt;

use bytes::BytesMut;
use zeroize::Zeroize as _;

/// Bytes that arrived and are not yet decoded.
pub struct ReadBuf {
    storage: BytesMut,
    /// INVARIANT: `start <= end <= storage.len()`.
    start: usize,
    end: usize,
}

impl ReadBuf {
    /// A buffer for `capacity` bytes; the capacity is also the longest frame that can be decoded.
    pub fn new(capacity: usize) -> Self {
        Self { storage: BytesMut::zeroed(capacity), start: 0, end: 0 }
    }

    /// Where the next bytes go. Empty only when a whole capacity of bytes is undecoded.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.end == self.storage.len() {
            self.storage.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        self.storage.get_mut(self.end..).unwrap_or_default()
    }

    /// Tells that `count` bytes were put into [`ReadBuf::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.storage.len());
    }

    /// What arrived and is not yet consumed.
    pub fn bytes(&self) -> &[u8] {
        self.storage.get(self.start..self.end).unwrap_or_default()
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }
}

impl fmt::Debug for ReadBuf {
    /// The bytes are not shown: they may hold an authentication exchange.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBuf")
            .field("undecoded", &self.bytes().len())
            .field("capacity", &self.storage.len())
            .finish()
    }
}

/// Messages that are encoded and not yet sent.
pub struct WriteBuf {
    storage: BytesMut,
    /// INVARIANT: `sent <= end <= storage.len()`; behind the end are zeros, as long as it wipes.
    sent: usize,
    end: usize,
    wipes: bool,
}

/// The message does not fit, or cannot be expressed; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl WriteBuf {
    /// A buffer for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self { storage: BytesMut::zeroed(capacity), sent: 0, end: 0, wipes: true }
    }

    /// From now on nothing secret is written: what was sent may stay until it is overwritten.
    pub fn stop_wiping(&mut self) {
        self.wipes = false;
    }

    /// What is to be sent.
    pub fn pending(&self) -> &[u8] {
        self.storage.get(self.sent..self.end).unwrap_or_default()
    }

    /// Tells that the first `count` bytes of [`WriteBuf::pending`] were sent.
    pub fn sent(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count).min(self.end);
        if self.sent == self.end {
            // Sent bytes may have been a password: they do not stay in memory.
            self.cut(0);
            self.sent = 0;
        }
    }

    /// How many more bytes fit.
    pub fn room(&self) -> usize {
        self.storage.len().saturating_sub(self.pending().len())
    }

    /// Writes one message: an optional type byte, the length, and what `body` adds.
    ///
    /// # Errors
    ///
    /// [`Full`] when the message does not fit or a string in it has a NUL byte; nothing is written.
    pub fn message(
        &mut self,
        tag: Option<u8>,
        body: impl FnOnce(&mut Body<'_>),
    ) -> Result<(), Full> {
        self.make_room();
        let start = self.end;
        let mut writer = Body { buf: self, refused: false };
        // Impossible as a length, should the patch below ever be forgotten.
        match tag {
            Some(tag) => writer.bytes(&[tag, 0xff, 0xff, 0xff, 0xff]),
            None => writer.i32(-1),
        }
        let length_at = writer.buf.end.saturating_sub(4);
        body(&mut writer);
        // What was refused may have left no place for the length.
        let is_whole = !writer.refused && self.patch_length(length_at).is_some();
        if !is_whole {
            self.cut(start);
            return Err(Full);
        }
        Ok(())
    }

    /// Writes a message that is always the same.
    ///
    /// # Errors
    ///
    /// [`Full`] when it does not fit; nothing is written.
    pub fn constant<const N: usize>(&mut self, message: &[u8; N]) -> Result<(), Full> {
        self.make_room();
        if self.put(message) { Ok(()) } else { Err(Full) }
    }

    /// Adds the bytes, if they fit.
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> bool {
        let end = self.end.saturating_add(bytes.len());
        let Some(place) = self.storage.get_mut(self.end..end) else { return false };
        place.copy_from_slice(bytes);
        self.end = end;
        true
    }

    fn patch_length(&mut self, at: usize) -> Option<()> {
        let length = i32::try_from(self.end.checked_sub(at)?).ok()?;
        let field = self.storage.get_mut(at..at.checked_add(4)?)?;
        field.copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    /// Moves the unsent bytes to the front once a part was sent, so that all of the room is used.
    fn make_room(&mut self) {
        if self.sent > 0 {
            self.storage.copy_within(self.sent..self.end, 0);
            self.cut(self.end.saturating_sub(self.sent));
            self.sent = 0;
        }
    }

    /// Shortens what is there, and leaves nothing secret behind its end.
    fn cut(&mut self, end: usize) {
        if self.wipes {
            if let Some(tail) = self.storage.get_mut(end..self.end) {
                tail.fill(0);
            }
        }
        self.end = end;
    }
}

/// By a write that the compiler may not leave out because nobody reads it any more.
impl Drop for WriteBuf {
    fn drop(&mut self) {
        self.storage.as_mut().zeroize();
    }
}

impl fmt::Debug for WriteBuf {
    /// The bytes are not shown: they may hold a password message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBuf")
            .field("unsent", &self.pending().len())
            .field("capacity", &self.storage.len())
            .finish()
    }
}

/// The body of the message that is being written (manual: protocol-message-types).
#[derive(Debug)]
pub struct Body<'a> {
    buf: &'a mut WriteBuf,
    refused: bool,
}

impl Body<'_> {
    /// Byte1.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Int16.
    pub fn i16(&mut self, value: i16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Int32.
    pub fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Int64, as the binary form of a `bigint` value.
    pub fn i64(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Byte*n*.
    pub fn bytes(&mut self, value: &[u8]) {
        // Nothing that was sent is in front: see `make_room`.
        self.refused |= !self.buf.put(value);
    }

    /// String: the text and a NUL byte. A NUL inside would end it early and let the rest be read
    /// as something else, so it refuses the message.
    pub fn string(&mut self, value: &str) {
        self.refused |= value.bytes().any(|byte| byte == 0);
        self.bytes(value.as_bytes());
        self.u8(0);
    }

    /// Int16 with the number of elements that follow.
    pub fn count(&mut self, count: usize) {
        match i16::try_from(count) {
            Ok(count) => self.i16(count),
            Err(_) => self.refused = true,
        }
    }

    /// Int32 with the number of bytes that follow.
    pub fn length(&mut self, length: usize) {
        match i32::try_from(length) {
            Ok(length) => self.i32(length),
            Err(_) => self.refused = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(buf: &mut WriteBuf) -> Result<(), Full> {
        buf.message(Some(b'S'), |_| ())
    }

    #[test]
    fn a_message_that_does_not_fit_leaves_nothing_behind() {
        let mut buf = WriteBuf::new(12);
        sync(&mut buf).expect("five of twelve bytes");
        assert_eq!(buf.message(Some(b'p'), |body| body.string("long")), Err(Full));
        assert_eq!(buf.pending(), b"S\0\0\0\x04");
        sync(&mut buf).expect("ten of twelve bytes");
        assert_eq!(sync(&mut buf), Err(Full));
    }

    #[test]
    fn a_message_without_room_for_its_head_leaves_the_one_before_as_it_was() {
        let mut buf = WriteBuf::new(12);
        buf.message(Some(b'p'), |body| body.bytes(b"abcde")).expect("ten of twelve bytes");
        let before = buf.pending().to_vec();
        assert_eq!(buf.message(Some(b'p'), |body| body.bytes(b"x")), Err(Full));
        assert_eq!(buf.message(None, |_| ()), Err(Full));
        assert_eq!(buf.pending(), before);
    }

    #[test]
    fn a_nul_byte_in_a_string_refuses_the_message() {
        let mut buf = WriteBuf::new(64);
        assert_eq!(buf.message(None, |body| body.string("a\0b")), Err(Full));
        assert!(buf.pending().is_empty());
    }

    #[test]
    fn a_count_beyond_sixteen_bits_refuses_the_message() {
        let mut buf = WriteBuf::new(64);
        assert_eq!(buf.message(None, |body| body.count(40_000)), Err(Full));
        assert_eq!(buf.message(None, |body| body.length(usize::MAX)), Err(Full));
    }

    #[test]
    fn what_was_sent_makes_room_without_growing() {
        let mut buf = WriteBuf::new(10);
        for _ in 0..100 {
            sync(&mut buf).expect("room for one");
            sync(&mut buf).expect("room for two");
            buf.sent(3);
            assert_eq!(buf.pending(), b"\0\x04S\0\0\0\x04");
            buf.sent(7);
        }
        assert_eq!(buf.storage.len(), 10);
    }

    #[test]
    fn read_space_comes_back_as_bytes_are_consumed() {
        let mut buf = ReadBuf::new(8);
        buf.space()[..6].copy_from_slice(b"abcdef");
        buf.filled(6);
        buf.consume(5);
        assert_eq!(buf.space().len(), 2);
        buf.space()[..2].copy_from_slice(b"gh");
        buf.filled(2);
        assert_eq!(buf.bytes(), b"fgh");
        assert_eq!(buf.space().len(), 5);
        assert_eq!(buf.bytes(), b"fgh");
    }

    #[test]
    fn impossible_counts_do_no_harm() {
        let mut buf = ReadBuf::new(4);
        buf.filled(100);
        assert_eq!(buf.bytes().len(), 4);
        buf.consume(100);
        assert!(buf.bytes().is_empty());
        assert_eq!(buf.space().len(), 4);
    }
}
