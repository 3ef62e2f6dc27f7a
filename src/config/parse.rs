//! The two grammars of a connection string (manual: libpq-connect, "Connection Strings").
//!
//! `Config`'s conversions call [`parse`], which takes a string apart; what stands in for a missing
//! value is up to `settings`, and what a value means to `apply`. The grammars are those of libpq
//! (`tests/libpq.rs` compares the two) with these differences, all of them towards refusing:
//!
//! * a `\` at the very end of the string (libpq drops it);
//! * an `@` in the path of a URL, which is nearly always the end of a password that has a `/`;
//! * percent-encoded bytes that are not UTF-8;
//! * white space in a URL (libpq 18 drops it at the ends of a part and refuses it elsewhere, and
//!   older ones take it as a piece of the value);
//! * the parameter `requiressl`, and strings of more than [`MAX_STRING_BYTES`].
//!
//! Errors give places and names, never values. A name is given only where it can be no piece of a
//! password; elsewhere the place stands for it.

use zeroize::Zeroizing;

use super::keyword::{Keyword, lookup};
use super::settings::{Settings, is_space};
use super::{Secret, refuse};
use crate::error::Error;

/// Far more than any honest string needs.
const MAX_STRING_BYTES: usize = 64 * 1024;

/// Reads a connection string of either kind.
pub(super) fn parse(text: &str) -> Result<Settings, Error> {
    if text.len() > MAX_STRING_BYTES {
        return refuse(format_args!(
            "the connection string has {} bytes; at most {MAX_STRING_BYTES} are allowed",
            text.len()
        ));
    }
    if text.contains('\0') {
        return refuse(format_args!("the connection string contains a NUL character; remove it"));
    }
    let url = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match url {
        Some(rest) => Url { settings: Settings::default() }.parse(rest),
        None => Pairs::new(text).parse(),
    }
}

/// `name=value` pairs separated by white space.
struct Pairs<'a> {
    text: &'a str,
    /// The byte offset of the next character.
    at: usize,
    /// The value under way. Large enough for any, so that it never moves and leaves a copy behind.
    value: Zeroizing<String>,
    settings: Settings,
}

impl<'a> Pairs<'a> {
    fn new(text: &'a str) -> Self {
        let value = Zeroizing::new(String::with_capacity(text.len()));
        Self { text, at: 0, value, settings: Settings::default() }
    }

    fn parse(mut self) -> Result<Settings, Error> {
        let first = self.text.split(|c| is_space(c) || c == '=').next().unwrap_or_default();
        if first.contains("://") {
            return refuse(format_args!(
                "the connection string starts like a URL of something else; expected \
                 postgres://, postgresql://, or name=value pairs"
            ));
        }
        // A password may have a quote, spaces and a `=` in it that nobody escaped: then every name
        // behind it is a piece of it.
        let mut after_password = false;
        loop {
            self.skip_spaces();
            let place = self.at + 1;
            if self.peek().is_none() {
                return Ok(self.settings);
            }
            let name = self.name()?;
            let keyword =
                lookup(name, !after_password, format_args!("the parameter at byte {place}"))?;
            self.skip_spaces();
            self.value.clear();
            if self.peek() == Some('\'') {
                self.quoted(keyword)?;
            } else {
                self.unquoted(keyword)?;
            }
            after_password |= keyword == Keyword::Password;
            self.settings.set(keyword, Secret::from(self.value.as_str()));
        }
    }

    /// A name with the `=` behind it, around which there may be spaces.
    fn name(&mut self) -> Result<&'a str, Error> {
        let start = self.at;
        let rest = &self.text[start..];
        let end = rest.find(|c| is_space(c) || c == '=').unwrap_or(rest.len());
        self.at += end;
        self.skip_spaces();
        if self.next() == Some('=') {
            return Ok(&rest[..end]);
        }
        refuse(format_args!(
            "the connection string has no `=` after the word at byte {}; expected a URL such as \
             postgres://user@host/dbname, or name=value pairs, with a value in single quotes if \
             it contains spaces",
            start + 1
        ))
    }

    fn unquoted(&mut self, keyword: Keyword) -> Result<(), Error> {
        while let Some(c) = self.peek().filter(|c| !is_space(*c)) {
            self.at += c.len_utf8();
            let c = if c == '\\' { self.escaped(keyword)? } else { c };
            self.value.push(c);
        }
        Ok(())
    }

    fn quoted(&mut self, keyword: Keyword) -> Result<(), Error> {
        let start = self.at + 1;
        self.at += 1;
        loop {
            match self.next() {
                None => {
                    return refuse(format_args!(
                        "the value of {} starts with a quote at byte {start} that never ends; \
                         add the closing quote, and write a quote inside the value as \\'",
                        keyword.name()
                    ));
                }
                Some('\'') => return Ok(()),
                Some('\\') => {
                    let c = self.escaped(keyword)?;
                    self.value.push(c);
                }
                Some(c) => self.value.push(c),
            }
        }
    }

    /// The character behind a backslash, whichever it is.
    fn escaped(&mut self, keyword: Keyword) -> Result<char, Error> {
        match self.next() {
            Some(c) => Ok(c),
            None => refuse(format_args!(
                "the value of {} ends in a backslash with nothing to escape; write a backslash \
                 as \\\\",
                keyword.name()
            )),
        }
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }
}

/// `scheme://[user[:password]@][host][:port][,...][/dbname][?name=value[&...]]`
struct Url {
    settings: Settings,
}

impl Url {
    /// Reads what follows the scheme.
    fn parse(mut self, rest: &str) -> Result<Settings, Error> {
        let rest = match rest.find(['@', '/']) {
            Some(end) if rest[end..].starts_with('@') => {
                let (user, password) = rest[..end].split_once(':').unwrap_or((&rest[..end], ""));
                self.set(Keyword::User, user)?;
                self.set(Keyword::Password, password)?;
                &rest[end + 1..]
            }
            _ => rest,
        };
        let rest = self.addresses(rest)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if path.contains('@') {
            return refuse(format_args!(
                "the URL has an `@` after the host; write `/` of a user or password as %2F, and \
                 `@` of a database name as %40"
            ));
        }
        self.set(Keyword::Dbname, path.strip_prefix('/').unwrap_or_default())?;
        self.query(query)?;
        Ok(self.settings)
    }

    /// The `host:port` pairs, separated by commas, and what follows them. They become two lists,
    /// as if the parameters `host` and `port` had been given; a part that is missing is empty.
    fn addresses<'a>(&mut self, mut rest: &'a str) -> Result<&'a str, Error> {
        let (mut hosts, mut ports) = (String::new(), String::new());
        loop {
            let host;
            (host, rest) = match rest.strip_prefix('[') {
                Some(inner) => bracketed(inner)?,
                None => rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len())),
            };
            hosts.push_str(host);
            if let Some(port) = rest.strip_prefix(':') {
                let (port, after) = port.split_at(port.find(['/', '?', ',']).unwrap_or(port.len()));
                ports.push_str(port);
                rest = after;
            }
            let Some(next) = rest.strip_prefix(',') else { break };
            hosts.push(',');
            ports.push(',');
            rest = next;
        }
        self.set(Keyword::Host, &hosts)?;
        self.set(Keyword::Port, &ports)?;
        Ok(rest)
    }

    fn query(&mut self, query: &str) -> Result<(), Error> {
        if query.is_empty() {
            return Ok(());
        }
        // With an `@` further on, this is a piece of a password that has an unescaped `?`; behind a
        // password, of one that has an unescaped `&`.
        let mut can_be_named = !query.contains('@');
        // As in libpq, one `&` may end the last parameter.
        let query = query.strip_suffix('&').unwrap_or(query);
        for (index, pair) in query.split('&').enumerate() {
            let place = format_args!("parameter {} of the URL", index + 1).to_string();
            let Some((name, value)) = pair.split_once('=') else {
                return refuse(format_args!("{place} has no `=`; expected name=value"));
            };
            if value.contains('=') {
                return refuse(format_args!(
                    "{place} has a second `=`; write `=` of a value as %3D"
                ));
            }
            let name = decode("a parameter's name", name)?;
            let name = name.expose();
            let known = Keyword::from_name(name);
            let value = decode(known.map_or("a parameter", Keyword::name), value)?;
            if (name, value.expose()) == ("ssl", "true") {
                // What JDBC says.
                self.settings.set(Keyword::Sslmode, Secret::from("require"));
                continue;
            }
            let keyword = lookup(name, can_be_named, format_args!("{place}"))?;
            can_be_named &= keyword != Keyword::Password;
            // An empty value counts here, unlike an empty part of the URL before the `?`.
            self.settings.set(keyword, value);
        }
        Ok(())
    }

    /// Sets a part of the URL that is there.
    fn set(&mut self, keyword: Keyword, encoded: &str) -> Result<(), Error> {
        if !encoded.is_empty() {
            self.settings.set(keyword, decode(keyword.name(), encoded)?);
        }
        Ok(())
    }
}

/// The address between brackets, and what follows them; the opening one is gone already.
fn bracketed(inner: &str) -> Result<(&str, &str), Error> {
    match inner.split_once(']') {
        None => refuse(format_args!("the URL has a `[` without the `]` that ends an IPv6 address")),
        Some(("", _)) => refuse(format_args!("the URL has no IPv6 address between `[` and `]`")),
        Some((host, rest)) if rest.is_empty() || rest.starts_with([':', '/', '?', ',']) => {
            Ok((host, rest))
        }
        Some(_) => refuse(format_args!(
            "the URL goes on after the `]` of an IPv6 address; expected `:` and a port, `,` and \
             another host, `/`, `?` or the end"
        )),
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1).
fn decode(what: &str, encoded: &str) -> Result<Secret, Error> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if is_space(char::from(byte)) {
            return refuse(format_args!(
                "the URL has white space in {what}; write a space of a value as %20, and remove \
                 what is around the URL"
            ));
        }
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        match digit().zip(digit()) {
            Some((0, 0)) => {
                return refuse(format_args!("the URL has %00 in {what}, which is forbidden"));
            }
            // Two hexadecimal digits fill a byte exactly.
            Some((high, low)) => decoded.push((high * 16 + low) as u8),
            None => {
                return refuse(format_args!(
                    "the URL has a `%` without two hexadecimal digits in {what}; write a percent \
                     sign as %25"
                ));
            }
        }
    }
    match std::str::from_utf8(&decoded) {
        Ok(text) => Ok(Secret::from(text)),
        Err(_) => refuse(format_args!("the percent-encoding in {what} of the URL is not UTF-8")),
    }
}
