//! What the value of a parameter means: from text to the fields of a [`Config`] (manual:
//! libpq-connect, "Parameter Key Words").
//!
//! `settings` calls this for each parameter that was given. What several parameters say together is
//! looked at by `check` and `plan`, since the builder can still change it. No error repeats a value
//! that is not one of the known words.

use std::path::PathBuf;
use std::time::Duration;

use super::keyword::Keyword;
use super::settings::{Source, Value, is_space};
use super::ssl::{ChannelBinding, RootCert, SslCertMode, SslMode, SslNegotiation, TlsVersion};
use super::{Config, DEFAULT_APPLICATION_NAME, DEFAULT_CONNECT_TIMEOUT, DEFAULT_PORT, refuse};
use crate::error::Error;

impl Value {
    pub(super) fn apply(&self, keyword: Keyword, config: &mut Config) -> Result<(), Error> {
        let text = self.text.expose();
        let given = Some(text).filter(|text| !text.is_empty());
        match keyword {
            // `service::fill` has used the first two, and `into_config` uses the third.
            Keyword::Service | Keyword::Servicefile | Keyword::FallbackApplicationName => {}
            Keyword::Host => config.hosts = list(text),
            Keyword::Hostaddr => config.hostaddrs = list(text),
            Keyword::Port => config.ports = self.ports()?,
            Keyword::User => config.user = given.map(str::to_owned),
            Keyword::Password => config.password = given.map(|_| self.text.clone()),
            Keyword::Passfile => config.passfile = given.map(PathBuf::from),
            Keyword::Dbname => config.dbname = self.dbname()?,
            Keyword::ApplicationName => {
                config.application_name = given.unwrap_or(DEFAULT_APPLICATION_NAME).to_owned();
            }
            Keyword::Options => config.options = given.map(str::to_owned),
            Keyword::ConnectTimeout => config.connect_timeout = self.connect_timeout(keyword)?,
            Keyword::TargetSessionAttrs => config.read_write = self.session_attrs(keyword)?,
            Keyword::LoadBalanceHosts => {
                config.load_balance_hosts =
                    self.word(keyword, &[("disable", false), ("random", true)])?;
            }
            Keyword::ClientEncoding => self.client_encoding(keyword)?,
            Keyword::RequireAuth => {
                config.require_auth = given.map(str::parse).transpose()?;
            }
            Keyword::MinProtocolVersion => config.refuse_3_0 = self.protocol_version(keyword)?,
            Keyword::MaxProtocolVersion => config.ask_3_2 = self.protocol_version(keyword)?,
            Keyword::Gssencmode => {
                self.word(keyword, &[("disable", ()), ("prefer", ())])?;
            }
            _ if !keyword.is_supported() => self.unsupported(keyword)?,
            _ => {
                self.apply_socket(keyword, config)?;
                self.apply_ssl(keyword, config)?;
            }
        }
        Ok(())
    }

    /// Zero and below stand for the default of the system, as the manual has it.
    fn apply_socket(&self, keyword: Keyword, config: &mut Config) -> Result<(), Error> {
        let socket = &mut config.socket;
        match keyword {
            Keyword::Keepalives => socket.keepalives = self.integer(keyword)? != 0,
            Keyword::KeepalivesIdle => {
                socket.keepalives_idle = self.positive(keyword)?.map(Duration::from_secs);
            }
            Keyword::KeepalivesInterval => {
                socket.keepalives_interval = self.positive(keyword)?.map(Duration::from_secs);
            }
            Keyword::KeepalivesCount => {
                socket.keepalives_count =
                    self.positive(keyword)?.and_then(|count| u32::try_from(count).ok());
            }
            Keyword::TcpUserTimeout => {
                socket.tcp_user_timeout = self.positive(keyword)?.map(Duration::from_millis);
            }
            _ => {}
        }
        Ok(())
    }

    fn apply_ssl(&self, keyword: Keyword, config: &mut Config) -> Result<(), Error> {
        let text = self.text.expose();
        let path = || Some(text).filter(|text| !text.is_empty()).map(PathBuf::from);
        match keyword {
            Keyword::Sslmode => config.ssl_mode = Some(self.ssl_mode(keyword)?),
            Keyword::Sslnegotiation => {
                let words =
                    [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
                config.ssl.negotiation = self.word(keyword, &words)?;
            }
            Keyword::ChannelBinding => {
                let words = [
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ];
                config.ssl.channel_binding = self.word(keyword, &words)?;
            }
            Keyword::Sslrootcert => config.ssl.root_cert = path().map(RootCert::from),
            Keyword::Sslcert => config.ssl.cert = path(),
            Keyword::Sslkey => config.ssl.key = path(),
            Keyword::Sslcertmode => {
                let words = [
                    ("disable", SslCertMode::Disable),
                    ("allow", SslCertMode::Allow),
                    ("require", SslCertMode::Require),
                ];
                config.ssl_cert_mode = self.word(keyword, &words)?;
            }
            Keyword::Sslsni => config.ssl.sni = self.word(keyword, &[("1", true), ("0", false)])?,
            // Compressed TLS leaks what it carries, and no server of today does it.
            Keyword::Sslcompression if !text.is_empty() => self.word(keyword, &[("0", ())])?,
            Keyword::SslMinProtocolVersion => {
                config.ssl.min_version = self.tls_version(keyword, TlsVersion::V1_2)?;
            }
            Keyword::SslMaxProtocolVersion => {
                config.ssl.max_version = self.tls_version(keyword, TlsVersion::V1_3)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// One of the words that a parameter may have, or an error that lists them.
    fn word<T: Copy>(&self, keyword: Keyword, words: &[(&str, T)]) -> Result<T, Error> {
        let text = self.text.expose();
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => {
                let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                let known = known.join(", ");
                refuse(format_args!("{} must be one of: {known}", self.subject(keyword)))
            }
        }
    }

    /// Like strtol(3), libpq allows a sign and white space around the digits.
    fn integer(&self, keyword: Keyword) -> Result<i32, Error> {
        match self.text.expose().trim_matches(is_space).parse() {
            Ok(number) => Ok(number),
            Err(_) => refuse(format_args!("{} is not a whole number", self.subject(keyword))),
        }
    }

    fn positive(&self, keyword: Keyword) -> Result<Option<u64>, Error> {
        Ok(u64::try_from(self.integer(keyword)?).ok().filter(|number| *number > 0))
    }

    fn ports(&self) -> Result<Vec<u16>, Error> {
        let list = list(self.text.expose());
        let mut ports = Vec::with_capacity(list.len());
        for (index, port) in list.iter().enumerate() {
            ports.push(match port.trim_matches(is_space).parse::<i32>().map(u16::try_from) {
                _ if port.is_empty() => DEFAULT_PORT,
                Ok(Ok(port)) if port > 0 => port,
                _ => {
                    let subject = self.subject(Keyword::Port);
                    let subject = match list.len() {
                        1 => subject,
                        _ => format!("entry {} of {subject}", index + 1),
                    };
                    return refuse(format_args!(
                        "{subject} is not a number from 1 to 65535 (in a URL, put an IPv6 address \
                         in brackets, and write `/`, `?` and `@` of a password as %2F, %3F and \
                         %40)"
                    ));
                }
            });
        }
        Ok(ports)
    }

    /// Some programs take a connection string here. libpq itself does when it is asked to, which
    /// nobody can here, so what looks like one was meant to be the whole.
    fn dbname(&self) -> Result<Option<String>, Error> {
        let text = self.text.expose();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return refuse(format_args!(
                "{} is a connection string; expected the name of a database, or this string \
                 instead of the whole",
                self.subject(Keyword::Dbname)
            ));
        }
        Ok(Some(text.to_owned()).filter(|name| !name.is_empty()))
    }

    /// libpq waits for ever for 0 and below. A lock client that hangs is of no use to anyone.
    fn connect_timeout(&self, keyword: Keyword) -> Result<Duration, Error> {
        Ok(match u64::try_from(self.integer(keyword)?) {
            Ok(0) | Err(_) => DEFAULT_CONNECT_TIMEOUT,
            Ok(seconds) => Duration::from_secs(seconds),
        })
    }

    /// Whether the session has to be able to write. That the server is the primary is asked for in
    /// any case.
    fn session_attrs(&self, keyword: Keyword) -> Result<bool, Error> {
        match self.text.expose() {
            "read-only" | "standby" | "prefer-standby" => refuse(format_args!(
                "{} asks for a standby or a session that cannot write, but locks need the primary: \
                 a standby has a lock table of its own; use any, primary or read-write",
                self.subject(keyword)
            )),
            _ => self.word(keyword, &[("any", false), ("primary", false), ("read-write", true)]),
        }
    }

    /// Whether it is newer than 3.0.
    fn protocol_version(&self, keyword: Keyword) -> Result<bool, Error> {
        self.word(keyword, &[("3.0", false), ("3.2", true), ("latest", true)])
    }

    fn ssl_mode(&self, keyword: Keyword) -> Result<SslMode, Error> {
        match self.text.expose() {
            mode @ ("allow" | "prefer") => refuse(format_args!(
                "{} is {mode}, which goes on in clear without a word when TLS cannot be had, so \
                 that whoever is in the way can switch it off; use verify-full, verify-ca or \
                 require, or disable on a network that is trusted",
                self.subject(keyword)
            )),
            _ => self.word(
                keyword,
                &[
                    ("disable", SslMode::Disable),
                    ("require", SslMode::Require),
                    ("verify-ca", SslMode::VerifyCa),
                    ("verify-full", SslMode::VerifyFull),
                ],
            ),
        }
    }

    /// As in libpq, the case of the letters does not count, and nothing stands for the default.
    fn tls_version(&self, keyword: Keyword, default: TlsVersion) -> Result<TlsVersion, Error> {
        match self.text.expose().to_ascii_lowercase().as_str() {
            "" => Ok(default),
            "tlsv1.2" => Ok(TlsVersion::V1_2),
            "tlsv1.3" => Ok(TlsVersion::V1_3),
            "tlsv1" | "tlsv1.1" => refuse(format_args!(
                "{} is older than TLSv1.2, which is not supported as it is not safe; use TLSv1.2 \
                 or TLSv1.3",
                self.subject(keyword)
            )),
            _ => refuse(format_args!("{} must be TLSv1.2 or TLSv1.3", self.subject(keyword))),
        }
    }

    /// The server takes any spelling of an encoding that differs in case and punctuation only. The
    /// variable is about the texts that a program exchanges with the database, and this crate
    /// exchanges none.
    fn client_encoding(&self, keyword: Keyword) -> Result<(), Error> {
        let letters = self.text.expose().chars().filter(char::is_ascii_alphanumeric);
        let plain: String = letters.take(16).map(|c| c.to_ascii_lowercase()).collect();
        if self.source == Source::Variable
            || self.text.expose().is_empty()
            || matches!(plain.as_str(), "utf8" | "unicode" | "auto")
        {
            return Ok(());
        }
        refuse(format_args!(
            "{} must be UTF8 or auto; this crate speaks nothing else",
            self.subject(keyword)
        ))
    }

    /// Passing over a parameter could mean to lock in the wrong place, or with less protection
    /// than was asked for.
    fn unsupported(&self, keyword: Keyword) -> Result<(), Error> {
        let text = self.text.expose();
        let is_harmless = match keyword {
            _ if text.is_empty() => true,
            // Details of GSSAPI, which is never used; a variable may be there for other programs.
            Keyword::Krbsrvname | Keyword::Gsslib | Keyword::Gssdelegation
                if self.source == Source::Variable =>
            {
                true
            }
            Keyword::Gssdelegation => text == "0",
            Keyword::Replication => matches!(text, "false" | "off" | "no" | "0"),
            _ => false,
        };
        if is_harmless {
            return Ok(());
        }
        refuse(format_args!(
            "the parameter `{}`{} is known to libpq but not supported, and without it the \
             connection would not be the one that was asked for; remove it",
            keyword.name(),
            match (self.source, keyword.variable()) {
                (Source::Variable, Some(variable)) => format!(", which {variable} sets,"),
                (Source::Service { line }, _) => format!(" (line {line} of the service file)"),
                _ => String::new(),
            }
        ))
    }
}

/// The entries of a list; an empty text has none.
pub(super) fn list(text: &str) -> Vec<String> {
    match text {
        "" => Vec::new(),
        _ => text.split(',').map(str::to_owned).collect(),
    }
}
