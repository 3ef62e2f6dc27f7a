//! The items of a `send` line, made into bytes: messages by their names in the manual, pieces of
//! bodies, and macros for the good parts (`tests/vectors/README.md` lists them). Standard library
//! only, and no code of any client.

/// A backend message: type byte, length, body (manual: protocol-message-formats).
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// A DataRow.
pub fn data_row(values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    for value in values {
        let length = value.as_ref().map_or(u32::MAX, |v| u32::try_from(v.len()).unwrap_or(0));
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    message(b'D', &body)
}

/// The process that the good server announces for its first session.
pub const PROCESS_ID: i32 = 4711;

/// Splits at spaces, but not within quotes or parentheses.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut depth) = (false, 0_i32);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => {
                word.push(character);
                word.extend(characters.next());
                continue;
            }
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ if character.is_whitespace() && !quoted && depth == 0 => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    if quoted || depth != 0 {
        return Err("a quote or a parenthesis is not closed".into());
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// The text of a value, in quotes or without; `fill:N` stands for so many letters.
pub fn text_of(text: &str) -> Result<String, String> {
    if let Some((before, count)) = text.split_once("fill:") {
        let count = count.parse().map_err(|_| format!("`{count}` is no count"))?;
        return Ok(format!("{before}{}", "A".repeat(count)));
    }
    let bytes = if text.starts_with('"') { string(text)? } else { text.as_bytes().to_vec() };
    String::from_utf8(bytes).map_err(|_| format!("`{text}` is not UTF-8"))
}

/// The bytes of items.
pub fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for word in split(text)? {
        bytes.extend(item(&word)?);
    }
    Ok(bytes)
}

fn item(word: &str) -> Result<Vec<u8>, String> {
    if word.starts_with('"') {
        return string(word);
    }
    if let Some(name) = word.strip_prefix('@') {
        return named(name);
    }
    if let Some((head, body)) = word.strip_suffix(')').and_then(|word| word.split_once('(')) {
        return framed(head, body);
    }
    let Some((kind, value)) = word.split_once(':') else {
        return framed(word, "");
    };
    let number = || value.parse::<i64>().map_err(|_| format!("`{value}` is no number"));
    Ok(match kind {
        "i8" => vec![(number()? & 0xff) as u8],
        "i16" => ((number()? & 0xffff) as u16).to_be_bytes().to_vec(),
        "i32" => ((number()? & 0xffff_ffff) as u32).to_be_bytes().to_vec(),
        "hex" => hex(value)?,
        "fill" => {
            let (count, byte) = value.split_once(':').ok_or("fill:COUNT:BYTE")?;
            let count: usize = count.parse().map_err(|_| format!("`{count}` is no count"))?;
            vec![*hex(byte)?.first().ok_or("fill:COUNT:BYTE")?; count]
        }
        _ => return Err(format!("`{word}` is unknown")),
    })
}

/// A message by its name or its type byte; `#N` behind it makes its length lie.
fn framed(head: &str, body: &str) -> Result<Vec<u8>, String> {
    let (name, length) = match head.split_once('#') {
        Some((name, length)) => {
            let length: i64 = length.parse().map_err(|_| format!("`{length}` is no length"))?;
            (name, Some((length & 0xffff_ffff) as u32))
        }
        None => (head, None),
    };
    let (tag, code) = kind(name)?;
    let mut content = code.map_or(Vec::new(), |code: i32| code.to_be_bytes().to_vec());
    content.extend(bytes_of(body)?);
    let mut bytes = message(tag, &content);
    if let Some(length) = length {
        bytes[1..5].copy_from_slice(&length.to_be_bytes());
    }
    Ok(bytes)
}

/// Type byte, and the number of an authentication request.
fn kind(name: &str) -> Result<(u8, Option<i32>), String> {
    Ok(match name {
        "AuthenticationOk" => (b'R', Some(0)),
        "AuthenticationKerberosV5" => (b'R', Some(2)),
        "AuthenticationCleartextPassword" => (b'R', Some(3)),
        "AuthenticationMD5Password" => (b'R', Some(5)),
        "AuthenticationGSS" => (b'R', Some(7)),
        "AuthenticationGSSContinue" => (b'R', Some(8)),
        "AuthenticationSSPI" => (b'R', Some(9)),
        "AuthenticationSASL" => (b'R', Some(10)),
        "AuthenticationSASLContinue" => (b'R', Some(11)),
        "AuthenticationSASLFinal" => (b'R', Some(12)),
        "BackendKeyData" => (b'K', None),
        "BindComplete" => (b'2', None),
        "CloseComplete" => (b'3', None),
        "CommandComplete" => (b'C', None),
        "CopyBothResponse" => (b'W', None),
        "CopyData" => (b'd', None),
        "CopyDone" => (b'c', None),
        "CopyInResponse" => (b'G', None),
        "CopyOutResponse" => (b'H', None),
        "DataRow" => (b'D', None),
        "EmptyQueryResponse" => (b'I', None),
        "ErrorResponse" => (b'E', None),
        "FunctionCallResponse" => (b'V', None),
        "NegotiateProtocolVersion" => (b'v', None),
        "NoData" => (b'n', None),
        "NoticeResponse" => (b'N', None),
        "NotificationResponse" => (b'A', None),
        "ParameterDescription" => (b't', None),
        "ParameterStatus" => (b'S', None),
        "ParseComplete" => (b'1', None),
        "PortalSuspended" => (b's', None),
        "ReadyForQuery" => (b'Z', None),
        "RowDescription" => (b'T', None),
        _ => match name.as_bytes() {
            [tag] => (*tag, None),
            _ => return Err(format!("no message is called `{name}`")),
        },
    })
}

/// The macros.
fn named(name: &str) -> Result<Vec<u8>, String> {
    let report = |tag, severity: &str, code: &str| {
        let fields = format!("S{severity}\0V{severity}\0C{code}\0Msaid by the server\0\0");
        message(tag, fields.as_bytes())
    };
    let answer = |value: u8| {
        let row = data_row(&[Some(vec![value])]);
        [message(b'2', b""), row, message(b'C', b"SELECT 1\0")].concat()
    };
    Ok(match name.split_once(':') {
        Some(("error", code)) => report(b'E', "ERROR", code),
        Some(("fatal", code)) => report(b'E', "FATAL", code),
        Some(("panic", code)) => report(b'E', "PANIC", code),
        Some(("notice", code)) => report(b'N', "NOTICE", code),
        Some(("warning", code)) => report(b'N', "WARNING", code),
        Some(_) => return Err(format!("no macro is called `@{name}`")),
        None => match name {
            "auth-ok" => framed("AuthenticationOk", "")?,
            "sasl" => framed("AuthenticationSASL", r#""SCRAM-SHA-256\0\0""#)?,
            "version" => message(b'S', b"server_version\x0015.18\0"),
            "parameter" => message(b'S', b"TimeZone\0Etc/UTC\0"),
            "standby" => message(b'S', b"in_hot_standby\0on\0"),
            "notification" => message(b'A', b"\0\0\0\x01channel\0payload\0"),
            "key-data" => message(b'K', &[PROCESS_ID.to_be_bytes(), *b"key!"].concat()),
            "ready" => message(b'Z', b"I"),
            "parse-complete" => message(b'1', b""),
            "bind-complete" => message(b'2', b""),
            "command-complete" => message(b'C', b"SELECT 1\0"),
            "true" => data_row(&[Some(vec![1])]),
            "false" => data_row(&[Some(vec![0])]),
            "granted" => [answer(1), message(b'Z', b"I")].concat(),
            "refused" => [answer(0), message(b'Z', b"I")].concat(),
            _ => return Err(format!("no macro is called `@{name}`")),
        },
    })
}

/// A string in quotes with `\0`, `\n`, `\r`, `\t`, `\"`, `\\` and `\xHH`. Its end is not marked by
/// a NUL byte unless one is written.
fn string(text: &str) -> Result<Vec<u8>, String> {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .ok_or_else(|| format!("`{text}` is no string"))?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'0') => 0,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'x') => {
                    let digits: Vec<u8> = rest.by_ref().take(2).collect();
                    let digits = String::from_utf8_lossy(&digits).into_owned();
                    u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits}"))?
                }
                Some(byte @ (b'"' | b'\\')) => byte,
                _ => return Err(format!("`{text}` has an unknown escape")),
            },
            byte => byte,
        });
    }
    Ok(bytes)
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'_').collect();
    if digits.len() % 2 != 0 {
        return Err(format!("`{text}` has half a byte"));
    }
    let pairs = digits.chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned());
    pairs.map(|pair| u8::from_str_radix(&pair, 16).map_err(|_| format!("`{text}`"))).collect()
}
