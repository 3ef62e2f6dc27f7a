//! A reader of frontend messages as a server has it (manual: protocol-message-formats), to find
//! out what our output says. It takes only what is right to the last byte.

/// A frontend message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the manual")]
pub enum Message {
    Startup {
        version: i32,
        parameters: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// PasswordMessage, SASLInitialResponse or SASLResponse: the server knows what it asked for.
    Response(Vec<u8>),
    Parse {
        name: Vec<u8>,
        query: Vec<u8>,
        types: Vec<i32>,
    },
    Bind {
        portal: Vec<u8>,
        statement: Vec<u8>,
        formats: Vec<i16>,
        values: Vec<Option<Vec<u8>>>,
        result_formats: Vec<i16>,
    },
    Execute {
        portal: Vec<u8>,
        rows: i32,
    },
    Sync,
    Terminate,
}

/// Reads one message off the front of what a client sent; `is_first` says that the StartupMessage
/// has to come, which has no type byte. `None` for anything that is not right, or not all there.
pub fn read(bytes: &mut &[u8], is_first: bool) -> Option<Message> {
    let mut frame = Reader(bytes);
    let tag = if is_first { 0 } else { frame.take(1)?[0] };
    let length = usize::try_from(frame.int32()?).ok()?;
    let mut body = Reader(frame.take(length.checked_sub(4)?)?);
    let message = body.message(tag)?;
    *bytes = frame.0;
    body.0.is_empty().then_some(message)
}

/// All messages of what a client sent.
///
/// # Panics
///
/// When it is not a sequence of whole messages.
pub fn read_all(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let message = read(&mut bytes, false);
        messages.push(message.unwrap_or_else(|| panic!("no message: {bytes:?}")));
    }
    messages
}

/// Takes a PasswordMessage's body apart.
pub fn password(body: &[u8]) -> Option<&[u8]> {
    let (last, password) = body.split_last()?;
    (*last == 0 && !password.contains(&0)).then_some(password)
}

/// Takes a SASLInitialResponse's body apart: the mechanism and its first message.
pub fn sasl_initial_response(body: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Reader(body);
    let mechanism = body.string()?;
    let length = body.int32()?;
    (usize::try_from(length) == Ok(body.0.len())).then_some((mechanism, body.0))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn int32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn int16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let length = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        Some(text)
    }

    /// An Int16 and so many of what `read` reads.
    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.int16()?;
        (0..u16::try_from(count).ok()?).map(|_| read(self)).collect()
    }

    fn message(&mut self, tag: u8) -> Option<Message> {
        Some(match tag {
            0 => {
                let version = self.int32()?;
                let mut parameters = Vec::new();
                loop {
                    let name = self.string()?;
                    if name.is_empty() {
                        break;
                    }
                    parameters.push((name, self.string()?));
                }
                Message::Startup { version, parameters }
            }
            b'p' => Message::Response(std::mem::take(&mut self.0).to_vec()),
            b'P' => Message::Parse {
                name: self.string()?,
                query: self.string()?,
                types: self.list(Self::int32)?,
            },
            b'B' => Message::Bind {
                portal: self.string()?,
                statement: self.string()?,
                formats: self.list(Self::int16)?,
                values: self.list(Self::value)?,
                result_formats: self.list(Self::int16)?,
            },
            b'E' => Message::Execute { portal: self.string()?, rows: self.int32()? },
            b'S' => Message::Sync,
            b'X' => Message::Terminate,
            _ => return None,
        })
    }

    fn value(&mut self) -> Option<Option<Vec<u8>>> {
        match self.int32()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?.to_vec())),
        }
    }
}
