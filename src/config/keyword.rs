//! The names of the parameters (manual: libpq-connect, "Parameter Key Words") and of their
//! environment variables (manual: libpq-envars).
//!
//! All of libpq's are here, so that a name that libpq has is told from one that nobody has; what
//! a parameter means, or that it is not supported, is up to `apply`. The parsers of strings and of
//! service files look names up here.

use std::fmt;

use super::refuse;
use crate::error::Error;

/// A name may differ from a parameter by this many letters to be taken for a slip.
const MAX_SLIPS: usize = 2;

macro_rules! keywords {
    ($($keyword:ident, $name:literal, $variable:expr;)*) => {
        /// A parameter of libpq.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Keyword { $($keyword,)* }

        impl Keyword {
            pub(super) const ALL: &'static [Self] = &[$(Self::$keyword,)*];

            /// Its name in a connection string.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$keyword => $name,)* }
            }

            /// Its environment variable.
            pub(super) const fn variable(self) -> Option<&'static str> {
                match self { $(Self::$keyword => $variable,)* }
            }
        }
    };
}

keywords! {
    Service, "service", Some("PGSERVICE");
    Servicefile, "servicefile", Some("PGSERVICEFILE");
    Host, "host", Some("PGHOST");
    Hostaddr, "hostaddr", Some("PGHOSTADDR");
    Port, "port", Some("PGPORT");
    User, "user", Some("PGUSER");
    Password, "password", Some("PGPASSWORD");
    Passfile, "passfile", Some("PGPASSFILE");
    Dbname, "dbname", Some("PGDATABASE");
    ApplicationName, "application_name", Some("PGAPPNAME");
    FallbackApplicationName, "fallback_application_name", None;
    Options, "options", Some("PGOPTIONS");
    ConnectTimeout, "connect_timeout", Some("PGCONNECT_TIMEOUT");
    TargetSessionAttrs, "target_session_attrs", Some("PGTARGETSESSIONATTRS");
    LoadBalanceHosts, "load_balance_hosts", Some("PGLOADBALANCEHOSTS");
    ClientEncoding, "client_encoding", Some("PGCLIENTENCODING");
    Keepalives, "keepalives", None;
    KeepalivesIdle, "keepalives_idle", None;
    KeepalivesInterval, "keepalives_interval", None;
    KeepalivesCount, "keepalives_count", None;
    TcpUserTimeout, "tcp_user_timeout", None;
    RequireAuth, "require_auth", Some("PGREQUIREAUTH");
    ChannelBinding, "channel_binding", Some("PGCHANNELBINDING");
    Sslmode, "sslmode", Some("PGSSLMODE");
    Sslnegotiation, "sslnegotiation", Some("PGSSLNEGOTIATION");
    Sslrootcert, "sslrootcert", Some("PGSSLROOTCERT");
    Sslcert, "sslcert", Some("PGSSLCERT");
    Sslkey, "sslkey", Some("PGSSLKEY");
    Sslcertmode, "sslcertmode", Some("PGSSLCERTMODE");
    Sslsni, "sslsni", Some("PGSSLSNI");
    Sslcompression, "sslcompression", Some("PGSSLCOMPRESSION");
    SslMinProtocolVersion, "ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION");
    SslMaxProtocolVersion, "ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION");
    MinProtocolVersion, "min_protocol_version", Some("PGMINPROTOCOLVERSION");
    MaxProtocolVersion, "max_protocol_version", Some("PGMAXPROTOCOLVERSION");
    Gssencmode, "gssencmode", Some("PGGSSENCMODE");
    Krbsrvname, "krbsrvname", Some("PGKRBSRVNAME");
    Gsslib, "gsslib", Some("PGGSSLIB");
    Gssdelegation, "gssdelegation", Some("PGGSSDELEGATION");
    Replication, "replication", None;
    Requirepeer, "requirepeer", Some("PGREQUIREPEER");
    Sslcrl, "sslcrl", Some("PGSSLCRL");
    Sslcrldir, "sslcrldir", Some("PGSSLCRLDIR");
    Sslpassword, "sslpassword", None;
    Sslkeylogfile, "sslkeylogfile", None;
    ScramClientKey, "scram_client_key", None;
    ScramServerKey, "scram_server_key", None;
    OauthIssuer, "oauth_issuer", None;
    OauthClientId, "oauth_client_id", None;
    OauthClientSecret, "oauth_client_secret", None;
    OauthScope, "oauth_scope", None;
}

/// What other programs call a parameter.
const ALIASES: [(&str, Keyword); 8] = [
    ("database", Keyword::Dbname),
    ("db", Keyword::Dbname),
    ("username", Keyword::User),
    ("pass", Keyword::Password),
    ("pwd", Keyword::Password),
    ("hostname", Keyword::Host),
    ("timeout", Keyword::ConnectTimeout),
    ("ssl", Keyword::Sslmode),
];

impl Keyword {
    pub(super) const COUNT: usize = Self::ALL.len();

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|keyword| keyword.name() == name)
    }

    /// Whether a value of it can do anything here; see `apply`.
    pub(super) const fn is_supported(self) -> bool {
        !matches!(
            self,
            Self::Krbsrvname
                | Self::Gsslib
                | Self::Gssdelegation
                | Self::Replication
                | Self::Requirepeer
                | Self::Sslcrl
                | Self::Sslcrldir
                | Self::Sslpassword
                | Self::Sslkeylogfile
                | Self::ScramClientKey
                | Self::ScramServerKey
                | Self::OauthIssuer
                | Self::OauthClientId
                | Self::OauthClientSecret
                | Self::OauthScope
        )
    }
}

/// The parameter of a name. `can_be_named` says that an unknown one may be repeated in the error;
/// suggestions are ours to print in any case.
pub(super) fn lookup(
    name: &str,
    can_be_named: bool,
    place: fmt::Arguments<'_>,
) -> Result<Keyword, Error> {
    if let Some(keyword) = Keyword::from_name(name) {
        return Ok(keyword);
    }
    if name == "requiressl" {
        return refuse(format_args!(
            "the parameter `requiressl` is not supported; use sslmode=require, or better \
             sslmode=verify-full"
        ));
    }
    // Only what looks like a name is repeated, and only if nobody can have meant a password.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let can_be_named = can_be_named && (1..=40).contains(&name.len()) && name.bytes().all(plain);
    let subject = if can_be_named { format!("`{name}`") } else { place.to_string() };
    match nearest(name) {
        Some(near) => refuse(format_args!(
            "{subject} is not a known parameter; did you mean `{}`?",
            near.name()
        )),
        None => refuse(format_args!(
            "{subject} is not a known parameter; expected one of those of libpq, such as host, \
             port, user, password or dbname (and a value that has spaces, `&`, `=` or `?` needs \
             quotes, or percent-encoding in a URL)"
        )),
    }
}

fn nearest(name: &str) -> Option<Keyword> {
    if let Some((_, keyword)) = ALIASES.iter().find(|(alias, _)| name.eq_ignore_ascii_case(alias)) {
        return Some(*keyword);
    }
    let known = Keyword::ALL.iter().filter(|keyword| keyword.is_supported());
    let near = known.map(|keyword| (distance(name, keyword.name()), keyword));
    let (slips, keyword) = near.min_by_key(|(slips, _)| *slips)?;
    (slips <= MAX_SLIPS).then_some(*keyword)
}

/// How many letters must be put in, taken out or replaced to make one text of the other; case
/// does not count. More than [`MAX_SLIPS`] may be any number.
fn distance(left: &str, right: &str) -> usize {
    if left.len().abs_diff(right.len()) > MAX_SLIPS {
        return MAX_SLIPS + 1;
    }
    let (left, right) = (left.as_bytes(), right.as_bytes());
    // The distances between what was read of `left` and every beginning of `right`.
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, byte) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 1..=right.len() {
            let same = byte.eq_ignore_ascii_case(&right[column - 1]);
            let replaced = diagonal + usize::from(!same);
            diagonal = row[column];
            row[column] = replaced.min(row[column] + 1).min(row[column - 1] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_every_slip_of_one_letter_is_understood() {
        for (index, keyword) in Keyword::ALL.iter().enumerate() {
            assert_eq!(*keyword as usize, index);
            assert_eq!(Keyword::from_name(keyword.name()), Some(*keyword));
            let slip = format!("{}x", keyword.name());
            if keyword.is_supported() && Keyword::from_name(&slip).is_none() {
                assert_eq!(nearest(&slip), Some(*keyword), "{slip}");
            }
        }
    }

    #[test]
    fn what_other_programs_say_is_understood() {
        for (alias, keyword) in ALIASES {
            assert_eq!(Keyword::from_name(alias), None);
            let text = lookup(alias, true, format_args!("it")).unwrap_err().to_string();
            assert!(text.contains(&format!("did you mean `{}`?", keyword.name())), "{text}");
        }
    }
}
