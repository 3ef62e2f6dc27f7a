//! The parameters by name, before they are a [`Config`]: where each value came from, and which one
//! counts.
//!
//! A connection string gives some of them, the environment fills the gaps, defaults the rest
//! (manual: libpq-envars). The environment comes in as a function, so that tests need not touch
//! the one of their process. No error here repeats a value: with one quote or one `%40` too few,
//! a piece of a password can end up as the value of another parameter.

use std::ffi::OsString;
use std::time::Duration;

use super::{Config, DEFAULT_CONNECT_TIMEOUT, Secret, refuse};
use crate::error::Error;

/// A parameter that this crate understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Host,
    Port,
    User,
    Password,
    Dbname,
    ApplicationName,
    ConnectTimeout,
    RequireAuth,
    Sslmode,
    ClientEncoding,
}

impl Keyword {
    pub(super) const ALL: [Self; 10] = [
        Self::Host,
        Self::Port,
        Self::User,
        Self::Password,
        Self::Dbname,
        Self::ApplicationName,
        Self::ConnectTimeout,
        Self::RequireAuth,
        Self::Sslmode,
        Self::ClientEncoding,
    ];

    /// Its name in a connection string.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Port => "port",
            Self::User => "user",
            Self::Password => "password",
            Self::Dbname => "dbname",
            Self::ApplicationName => "application_name",
            Self::ConnectTimeout => "connect_timeout",
            Self::RequireAuth => "require_auth",
            Self::Sslmode => "sslmode",
            Self::ClientEncoding => "client_encoding",
        }
    }

    /// Its environment variable. `PGCLIENTENCODING` is not read: it is about the texts that a
    /// program exchanges with the database, and this crate exchanges none.
    const fn variable(self) -> Option<&'static str> {
        Some(match self {
            Self::Host => "PGHOST",
            Self::Port => "PGPORT",
            Self::User => "PGUSER",
            Self::Password => "PGPASSWORD",
            Self::Dbname => "PGDATABASE",
            Self::ApplicationName => "PGAPPNAME",
            Self::ConnectTimeout => "PGCONNECT_TIMEOUT",
            Self::RequireAuth => "PGREQUIREAUTH",
            Self::Sslmode => "PGSSLMODE",
            Self::ClientEncoding => return None,
        })
    }
}

/// Variables of libpq that change which server is reached, or how safely. Passing over them would
/// lock in the wrong place, or with less protection than was asked for, so they are refused unless
/// their value is one of those that change nothing here.
const REFUSED_VARIABLES: [(&str, &[&str]); 10] = [
    ("PGHOSTADDR", &[]),
    ("PGSERVICE", &[]),
    // A standby is refused at connect in any case.
    ("PGTARGETSESSIONATTRS", &["any", "primary"]),
    ("PGCHANNELBINDING", &["disable", "prefer"]),
    ("PGGSSENCMODE", &["disable", "prefer"]),
    ("PGSSLNEGOTIATION", &["postgres"]),
    ("PGREQUIRESSL", &["0"]),
    ("PGREQUIREPEER", &[]),
    // With `system` libpq verifies the server by itself.
    ("PGSSLROOTCERT", &[]),
    ("PGMINPROTOCOLVERSION", &["3.0"]),
];

/// The parameters that were given so far, at the index of their [`Keyword`].
#[derive(Default)]
pub(super) struct Settings([Option<Value>; Keyword::ALL.len()]);

struct Value {
    text: Secret,
    /// What the user knows it by: the parameter or the variable.
    source: &'static str,
}

impl Settings {
    /// A later value of a string replaces an earlier one, as in libpq.
    pub(super) fn set(&mut self, keyword: Keyword, text: Secret) {
        self.0[keyword as usize] = Some(Value { text, source: keyword.name() });
    }

    /// Completes the settings from the environment and makes the configuration. A missing user is
    /// no error yet: the builder can still name one.
    pub(super) fn into_config(
        mut self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Config, Error> {
        self.fill_gaps(&variable)?;
        let mut config = Config::new();
        for (keyword, value) in Keyword::ALL.into_iter().zip(self.0) {
            // An empty value keeps the environment out and leaves the default.
            if let Some(value) = value.filter(|value| !value.text.expose().is_empty()) {
                config = value.apply(keyword, config)?;
            }
        }
        if config.user.is_none() {
            // libpq asks the operating system for the name; these two say the same nearly always.
            let text = |name| variable(name)?.into_string().ok().filter(|text| !text.is_empty());
            config.user = text("USER").or_else(|| text("LOGNAME"));
        }
        config.check_values()?;
        Ok(config)
    }

    fn fill_gaps(&mut self, variable: &impl Fn(&str) -> Option<OsString>) -> Result<(), Error> {
        for (name, harmless) in REFUSED_VARIABLES {
            let value = variable(name).filter(|value| !value.is_empty());
            if value.is_some_and(|value| !harmless.iter().any(|it| value == **it)) {
                return refuse(format_args!(
                    "the environment variable {name} is set; it is known to libpq but not \
                     supported, and without it the connection would not be the one that was \
                     asked for; unset it"
                ));
            }
        }
        for (keyword, slot) in Keyword::ALL.into_iter().zip(&mut self.0) {
            let Some(name) = keyword.variable().filter(|_| slot.is_none()) else { continue };
            let Some(value) = variable(name) else { continue };
            match value.into_string() {
                Ok(text) => *slot = Some(Value { text: text.into(), source: name }),
                Err(_) => {
                    return refuse(format_args!(
                        "the environment variable {name} is not valid UTF-8"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn apply(self, keyword: Keyword, mut config: Config) -> Result<Config, Error> {
        let text = self.text.expose();
        Ok(match keyword {
            Keyword::Host => config.host(text),
            Keyword::Port => config.port(self.port()?),
            Keyword::User => config.user(text),
            Keyword::Password => {
                config.password = Some(self.text);
                config
            }
            Keyword::Dbname => config.dbname(text),
            Keyword::ApplicationName => config.application_name(text),
            Keyword::ConnectTimeout => config.connect_timeout(self.connect_timeout()?),
            Keyword::RequireAuth => config.require_auth(text.parse()?),
            Keyword::Sslmode => self.sslmode().map(|()| config)?,
            Keyword::ClientEncoding => self.client_encoding().map(|()| config)?,
        })
    }

    /// Like strtol(3), libpq allows a sign and white space around the digits.
    fn integer(&self) -> Option<i32> {
        self.text.expose().trim_matches(is_space).parse().ok()
    }

    fn port(&self) -> Result<u16, Error> {
        if self.text.expose().contains(',') {
            return refuse(format_args!(
                "{} lists several ports, which is not supported; name one",
                self.source
            ));
        }
        match self.integer().and_then(|port| u16::try_from(port).ok()) {
            Some(port) if port > 0 => Ok(port),
            _ => refuse(format_args!(
                "{} is not a number from 1 to 65535 (in a URL, put an IPv6 address in brackets, \
                 and write `/`, `?` and `@` of a password as %2F, %3F and %40)",
                self.source
            )),
        }
    }

    /// libpq waits for ever for 0 and below. A lock client that hangs is of no use to anyone.
    fn connect_timeout(&self) -> Result<Duration, Error> {
        match self.integer() {
            Some(seconds) => Ok(match u64::try_from(seconds) {
                Ok(0) | Err(_) => DEFAULT_CONNECT_TIMEOUT,
                Ok(seconds) => Duration::from_secs(seconds),
            }),
            None => refuse(format_args!("{} is not a whole number of seconds", self.source)),
        }
    }

    fn sslmode(&self) -> Result<(), Error> {
        const OTHERS: [&str; 5] = ["allow", "prefer", "require", "verify-ca", "verify-full"];
        let text = self.text.expose();
        if text == "disable" {
            return Ok(());
        }
        match OTHERS.into_iter().find(|mode| *mode == text) {
            Some(mode) => refuse(format_args!(
                "{} is {mode}, but this build has no TLS; only disable is supported, on a \
                 network that is trusted",
                self.source
            )),
            None => refuse(format_args!(
                "{} is not an SSL mode; only disable is supported, as this build has no TLS",
                self.source
            )),
        }
    }

    /// The server takes any spelling of an encoding that differs in case and punctuation only.
    fn client_encoding(&self) -> Result<(), Error> {
        let letters = self.text.expose().chars().filter(char::is_ascii_alphanumeric);
        let plain: String = letters.take(16).map(|c| c.to_ascii_lowercase()).collect();
        if matches!(plain.as_str(), "utf8" | "unicode" | "auto") {
            return Ok(());
        }
        refuse(format_args!("{} must be UTF8 or auto; this crate speaks nothing else", self.source))
    }
}

/// White space as isspace(3) has it in the C locale.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
