//! What a manager is told: where the server is, who we are, the limits, and the times.
//!
//! [`Config`] is a value: it connects to nothing and reads no clock. It is filled by its setters
//! (`builder`, `limits`), or by a connection string (`parse`), a service file (`service`) and the
//! environment (`settings`), whose texts `apply` understands. `check` refuses what could not work
//! or would not be safe. `plan` looks up the files that are named, once: every reconnect follows
//! the same policy.

mod apply;
mod auth;
mod builder;
mod certificates;
mod check;
/// For this crate's own tests: connection strings as they are understood.
#[cfg(any(fuzzing, feature = "__internals"))]
#[path = "internals.rs"]
pub mod conninfo;
mod file;
mod hosts;
mod keyword;
mod limits;
mod parse;
mod passfile;
mod plan;
mod proxy;
mod secret;
mod service;
mod settings;
mod socket;
mod ssl;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::auth::AuthMethods;
use self::auth::RequireAuth;
pub(crate) use self::plan::{Endpoint, Place, Plan};
pub use self::proxy::Proxy;
pub(crate) use self::secret::Secret;
pub(crate) use self::socket::SocketOptions;
#[cfg_attr(not(feature = "tls"), allow(unused_imports, reason = "TLS has it"))]
pub(crate) use self::ssl::SslOptions;
pub use self::ssl::{ChannelBinding, RootCert, SslMode, SslNegotiation, TlsVersion};
use crate::error::Error;

const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 5432;
const DEFAULT_APPLICATION_NAME: &str = "distlock";
/// The least of RFC 7677, and far more than any server has by default.
const DEFAULT_SCRAM_ITERATIONS: RangeInclusive<u32> = 4096..=100_000;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(2);
const DEFAULT_REPLY_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_LEASE: Duration = Duration::from_secs(6);
const DEFAULT_SERVER_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_MAX_LOCKS: u32 = 1024;
const DEFAULT_MAX_REQUESTS: u32 = 1024;
const DEFAULT_MAX_WAITERS: u32 = 1024;
const DEFAULT_LINGER: Duration = Duration::from_micros(100);

/// How to reach the server, and the limits and times of a manager.
///
/// # From a string
///
/// A string is a URL, `postgres://user:password@host:port/dbname?name=value&...`, or a list of
/// `name=value` pairs, with the grammar of libpq (manual: libpq-connect, "Connection Strings"):
///
/// ```
/// use distlock::Config;
///
/// let config: Config = "postgres://app:s3cret@db.internal/prod?connect_timeout=5".parse()?;
/// let same: Config = "host=db.internal user=app password=s3cret dbname=prod".parse()?;
/// assert!(!format!("{config:?} {same:?}").contains("s3cret"));
///
/// let error = "postgres://db.internal/prod?conect_timeout=5".parse::<Config>().unwrap_err();
/// assert!(error.to_string().contains("did you mean `connect_timeout`?"));
/// # Ok::<(), distlock::Error>(())
/// ```
///
/// Every parameter of libpq 15 to 18 is known; the manual says what each one means (libpq-connect,
/// "Parameter Key Words"). What a string leaves out comes from the service file, then from the
/// environment (libpq-envars), then from the last column here:
///
/// | parameter | variable | when not given |
/// |---|---|---|
/// | `host` | `PGHOST` | `localhost` |
/// | `hostaddr` | `PGHOSTADDR` | the name is looked up |
/// | `port` | `PGPORT` | 5432 |
/// | `user` | `PGUSER` | `USER`, else `LOGNAME` |
/// | `password` | `PGPASSWORD` | from the password file |
/// | `passfile` | `PGPASSFILE` | `~/.pgpass` |
/// | `dbname` | `PGDATABASE` | the user |
/// | `service` | `PGSERVICE` | none |
/// | `servicefile` | `PGSERVICEFILE` | `~/.pg_service.conf`, then the one in `PGSYSCONFDIR` |
/// | `application_name` | `PGAPPNAME` | `fallback_application_name`, then `distlock` |
/// | `options` | `PGOPTIONS` | none |
/// | `connect_timeout` | `PGCONNECT_TIMEOUT` | 10 |
/// | `target_session_attrs` | `PGTARGETSESSIONATTRS` | `primary` |
/// | `load_balance_hosts` | `PGLOADBALANCEHOSTS` | `disable` |
/// | `require_auth` | `PGREQUIREAUTH` | see [`Self::require_auth`] |
/// | `channel_binding` | `PGCHANNELBINDING` | `prefer` |
/// | `sslmode` | `PGSSLMODE` | `verify-full` with an `sslrootcert`, else `disable` |
/// | `sslrootcert` | `PGSSLROOTCERT` | `~/.postgresql/root.crt` |
/// | `sslcert` | `PGSSLCERT` | `~/.postgresql/postgresql.crt` |
/// | `sslkey` | `PGSSLKEY` | `~/.postgresql/postgresql.key` |
/// | `sslcertmode` | `PGSSLCERTMODE` | `allow` |
/// | `sslnegotiation` | `PGSSLNEGOTIATION` | `postgres` |
/// | `sslsni` | `PGSSLSNI` | 1 |
/// | `ssl_min_protocol_version` | `PGSSLMINPROTOCOLVERSION` | `TLSv1.2` |
/// | `ssl_max_protocol_version` | `PGSSLMAXPROTOCOLVERSION` | `TLSv1.3` |
/// | `min_protocol_version` | `PGMINPROTOCOLVERSION` | 3.0 |
/// | `max_protocol_version` | `PGMAXPROTOCOLVERSION` | 3.2 |
/// | `keepalives` | | 1 |
/// | `keepalives_idle`, `_interval`, `_count` | | the system's |
/// | `tcp_user_timeout` | | the system's |
/// | `gssencmode` | `PGGSSENCMODE` | off; `require` is refused |
/// | `sslcompression` | `PGSSLCOMPRESSION` | 0; 1 is refused |
/// | `client_encoding` | | `UTF8`, the only one |
///
/// An empty value stands for the last column where it is a name, a file or a list, and is an error
/// elsewhere, as in libpq. An unknown parameter is an error. So are these, unless they are empty:
/// `requiressl`, `requirepeer`, `sslcrl`, `sslcrldir`, `sslpassword`, `sslkeylogfile`,
/// `replication`, and those of GSSAPI, OAuth and SCRAM keys.
///
/// # Where it is not as in libpq
///
/// Nearly everywhere towards refusing what libpq would pass over:
///
/// * Without a host it is `localhost` by TCP, not the directory of the socket. There are at most 32
///   hosts, and no abstract sockets (`@`).
/// * `connect_timeout` is for all hosts together; 0 and less stand for 10, not for ever.
/// * Standbys are always refused: `any` means `primary`, and `read-only`, `standby` and
///   `prefer-standby` are errors.
/// * A password file is an error when it is faulty: no regular file, or one that others can read,
///   or one that was named and is not there. It is read once, when the manager is made, and only if
///   no password is given. A line for `localhost` counts for the socket in `/var/run/postgresql`,
///   too.
/// * Service files do not ask LDAP, and there is no directory of the system for them but the one
///   that `PGSYSCONFDIR` names.
/// * The home directory is what `HOME` says. `PGTZ`, `PGDATESTYLE` and `PGGEQO` are not read, as
///   nothing here depends on what they set.
/// * `hostaddr` is a whole address, and not one like `127.1`. A host with one of `= ; & ? ' "`, a
///   directory of the socket with a `=`, and any other value with `password=` in it are errors:
///   parameters that are not separated by spaces are all one value, which would be shown.
/// * With a password the server may only use SCRAM-SHA-256, and without one it may only let the
///   session in. A list with `!` in `require_auth` takes away from that: `!password` does not allow
///   `md5`. `password` needs `sslmode=verify-full`.
/// * Names of more than 63 bytes, which the server would cut off, are errors.
/// * A `dbname` that is a connection string is an error. So are a backslash at the end of a string,
///   white space and an `@` behind the host in a URL, and bytes that are not UTF-8.
/// * A named file of certificates that is not there is an error, with every `sslmode`. With
///   `sslcertmode=require` there has to be a certificate to send; whether the server wants it is
///   its own affair.
/// * Lists of revoked certificates are not looked at: `sslcrl` and `sslcrldir` are errors, and so
///   is a `~/.postgresql/root.crl` where a file of authorities verifies the server.
/// * TLS before 1.2 is not spoken, and an error where it is named. `sslsni` is 1 or 0; libpq takes
///   anything but a 1 for 0.
///
/// # TLS
///
/// It needs the feature `tls` of this crate; without it anything but `sslmode=disable` is an error.
///
/// libpq's default, `prefer`, asks for TLS and goes on in clear when it is told that there is none.
/// Whoever is in the way can say so, and then read and change everything: not the password with
/// SCRAM, but the answers about locks. So it protects from nobody who is active, looks as if it
/// did, and differs from one connection to the next. Here a connection is either in clear because
/// that was asked for, or under the protection that was asked for.
///
/// A Unix-domain socket has no TLS, whatever `sslmode` says (as in libpq). With `sslmode=require`
/// and known authorities the certificate is verified as with `verify-ca` (as in libpq).
///
/// # With setters
///
/// ```
/// use std::time::Duration;
/// use distlock::Config;
///
/// let config = Config::new()
///     .host("db.internal")
///     .user("app")
///     .dbname("prod")
///     .connect_timeout(Duration::from_secs(5))
///     .max_locks(100);
/// # let _ = config;
/// ```
///
/// The setters accept everything; `Manager::connect` checks the whole and says what is wrong.
#[derive(Clone)]
pub struct Config {
    /// Lists, whose entries may be empty; `hosts` says what they come to together.
    pub(crate) hosts: Vec<String>,
    /// Whether a list without any was given for them.
    pub(crate) has_no_hosts: bool,
    pub(crate) hostaddrs: Vec<String>,
    pub(crate) ports: Vec<u16>,
    pub(crate) load_balance_hosts: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) passfile: Option<PathBuf>,
    /// Where files are looked for that nobody named; the builder alone knows of none.
    pub(crate) home: Option<PathBuf>,
    pub(crate) dbname: Option<String>,
    pub(crate) application_name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) require_auth: Option<RequireAuth>,
    /// Command-line options for the server process (`options`).
    pub(crate) options: Option<String>,
    /// Whether the session has to be able to write (`target_session_attrs=read-write`).
    pub(crate) read_write: bool,
    /// The newest protocol version to ask for is 3.2 (`max_protocol_version`), or else 3.0.
    pub(crate) ask_3_2: bool,
    /// Whether 3.0 is too old (`min_protocol_version`).
    pub(crate) refuse_3_0: bool,
    /// How many rounds the server may have hashed the password.
    pub(crate) scram_iterations: RangeInclusive<u32>,
    /// `None` until somebody says; `ssl_options` has what is in force.
    pub(crate) ssl_mode: Option<SslMode>,
    pub(crate) ssl_cert_mode: ssl::SslCertMode,
    /// As it was given; in a [`Plan`], what is in force.
    pub(crate) ssl: SslOptions,
    /// Of our end of the connection.
    pub(crate) socket: SocketOptions,
    pub(crate) proxy: Proxy,
    pub(crate) witness: bool,
    pub(crate) heartbeat: Duration,
    pub(crate) reply_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) server_timeout: Duration,
    pub(crate) max_locks: u32,
    pub(crate) max_requests: u32,
    pub(crate) max_waiters: u32,
    pub(crate) linger: Duration,
    pub(crate) release_on_cancel: bool,
}

impl Config {
    /// The defaults, without a user: at least [`user`](Self::user) has to be called. The
    /// environment is not read.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hosts: Vec::new(),
            has_no_hosts: false,
            hostaddrs: Vec::new(),
            ports: Vec::new(),
            load_balance_hosts: false,
            user: None,
            password: None,
            passfile: None,
            home: None,
            dbname: None,
            application_name: DEFAULT_APPLICATION_NAME.to_owned(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            require_auth: None,
            options: None,
            read_write: false,
            ask_3_2: true,
            refuse_3_0: false,
            scram_iterations: DEFAULT_SCRAM_ITERATIONS,
            ssl_mode: None,
            ssl_cert_mode: ssl::SslCertMode::default(),
            ssl: SslOptions::default(),
            socket: SocketOptions::default(),
            proxy: Proxy::None,
            witness: true,
            heartbeat: DEFAULT_HEARTBEAT,
            reply_timeout: DEFAULT_REPLY_TIMEOUT,
            lease: DEFAULT_LEASE,
            server_timeout: DEFAULT_SERVER_TIMEOUT,
            max_locks: DEFAULT_MAX_LOCKS,
            max_requests: DEFAULT_MAX_REQUESTS,
            max_waiters: DEFAULT_MAX_WAITERS,
            linger: DEFAULT_LINGER,
            release_on_cancel: false,
        }
    }

    /// Reads the `PG*` variables in the table above, and a service file if they name a service, and
    /// takes the defaults for the others.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the variable that cannot be used.
    pub fn from_env() -> Result<Self, Error> {
        settings::Settings::default().into_config(process_variable)
    }

    /// The role to connect as; [`check`](Self::check) has made sure that there is one.
    pub(crate) fn user_name(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }

    /// The database to connect to.
    pub(crate) fn database(&self) -> &str {
        self.dbname.as_deref().unwrap_or_else(|| self.user_name())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("hosts", &self.hosts)
            .field("has_no_hosts", &self.has_no_hosts)
            .field("hostaddrs", &self.hostaddrs)
            .field("ports", &self.ports)
            .field("load_balance_hosts", &self.load_balance_hosts)
            .field("user", &self.user)
            // `Secret` prints a placeholder.
            .field("password", &self.password)
            .field("passfile", &self.passfile)
            .field("dbname", &self.dbname)
            .field("application_name", &self.application_name)
            .field("connect_timeout", &self.connect_timeout)
            .field("require_auth", &self.require_auth)
            .field("scram_iterations", &self.scram_iterations)
            .field("options", &self.options)
            .field("read_write", &self.read_write)
            .field("ask_3_2", &self.ask_3_2)
            .field("refuse_3_0", &self.refuse_3_0)
            .field("ssl_mode", &self.ssl_mode)
            .field("ssl_cert_mode", &self.ssl_cert_mode)
            .field("ssl", &self.ssl)
            .field("socket", &self.socket)
            .field("proxy", &self.proxy)
            .field("witness", &self.witness)
            .field("heartbeat", &self.heartbeat)
            .field("reply_timeout", &self.reply_timeout)
            .field("lease", &self.lease)
            .field("server_timeout", &self.server_timeout)
            .field("max_locks", &self.max_locks)
            .field("max_requests", &self.max_requests)
            .field("max_waiters", &self.max_waiters)
            .field("linger", &self.linger)
            .field("release_on_cancel", &self.release_on_cancel)
            .finish()
    }
}

impl FromStr for Config {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse::parse(text)?.into_config(process_variable)
    }
}

impl TryFrom<&str> for Config {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

/// The string is wiped afterwards, as it may hold a password.
impl TryFrom<String> for Config {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Zeroizing::new(text).parse()
    }
}

impl TryFrom<&String> for Config {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

/// A variable of this process.
fn process_variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// The error for a configuration that cannot be used.
fn refuse<T>(reason: fmt::Arguments<'_>) -> Result<T, Error> {
    Err(Error::Config(reason.to_string().into()))
}
