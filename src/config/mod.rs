//! What a manager is told: where the server is, who we are, the limits, and the times.
//!
//! [`Config`] is a value: it opens nothing and reads no clock. It is filled by its setters, by a
//! connection string (`parse`), or from the environment (`settings`); `check` refuses what could
//! not work or would not be safe. The manager keeps one copy for its whole life, so that every
//! reconnect follows the same policy.

mod auth;
mod check;
mod parse;
mod plan;
mod proxy;
mod secret;
mod settings;
mod ssl;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::auth::AuthMethods;
pub(crate) use self::plan::{Endpoint, Place, Plan};
pub use self::proxy::Proxy;
pub(crate) use self::secret::Secret;
pub(crate) use self::ssl::{ChannelBinding, SslMode, SslOptions};
#[cfg(feature = "tls")]
pub(crate) use self::ssl::{RootCert, SslNegotiation, TlsVersion};
use crate::error::Error;

const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 5432;
const DEFAULT_APPLICATION_NAME: &str = "distlock";
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(2);
const DEFAULT_REPLY_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_LEASE: Duration = Duration::from_secs(6);
const DEFAULT_SERVER_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_MAX_LOCKS: u32 = 1024;
const DEFAULT_MAX_REQUESTS: u32 = 1024;
const DEFAULT_MAX_WAITERS: u32 = 1024;

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
/// | parameter | variable | meaning | when not given |
/// |---|---|---|---|
/// | `host` | `PGHOST` | a name, an address, or the socket's directory | `localhost` |
/// | `port` | `PGPORT` | also part of the socket's name | 5432 |
/// | `user` | `PGUSER` | role to connect as | `USER`, else `LOGNAME` |
/// | `password` | `PGPASSWORD` | | none |
/// | `dbname` | `PGDATABASE` | locks of different databases are different locks | the user |
/// | `application_name` | `PGAPPNAME` | shown in `pg_stat_activity` | `distlock` |
/// | `connect_timeout` | `PGCONNECT_TIMEOUT` | whole seconds; 0 or less: 10, not for ever | 10 |
/// | `require_auth` | `PGREQUIREAUTH` | see [`Self::require_auth`] | by the password |
/// | `sslmode` | `PGSSLMODE` | `disable` only, as this build has no TLS | `disable` |
/// | `client_encoding` | | `UTF8` or `auto` | `UTF8` |
///
/// What the string leaves out comes from the environment, then from the last column. An empty
/// value stands for the last column. Any other parameter is an error that names it.
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
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) dbname: Option<String>,
    pub(crate) application_name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) require_auth: Option<AuthMethods>,
    /// Command-line options for the server process (`options`).
    pub(crate) options: Option<String>,
    /// Whether the session has to be able to write (`target_session_attrs=read-write`).
    pub(crate) read_write: bool,
    /// The newest protocol version to ask for is 3.2 (`max_protocol_version`), or else 3.0.
    pub(crate) ask_3_2: bool,
    /// Whether 3.0 is too old (`min_protocol_version`).
    pub(crate) refuse_3_0: bool,
    pub(crate) ssl: SslOptions,
    pub(crate) proxy: Proxy,
    pub(crate) witness: bool,
    pub(crate) heartbeat: Duration,
    pub(crate) reply_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) server_timeout: Duration,
    pub(crate) max_locks: u32,
    pub(crate) max_requests: u32,
    pub(crate) max_waiters: u32,
    pub(crate) release_on_cancel: bool,
}

impl Config {
    /// The defaults, without a user: at least [`user`](Self::user) has to be called. The
    /// environment is not read.
    #[must_use]
    pub fn new() -> Self {
        Self {
            host: DEFAULT_HOST.to_owned(),
            port: DEFAULT_PORT,
            user: None,
            password: None,
            dbname: None,
            application_name: DEFAULT_APPLICATION_NAME.to_owned(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            require_auth: None,
            options: None,
            read_write: false,
            ask_3_2: true,
            refuse_3_0: false,
            ssl: SslOptions::default(),
            proxy: Proxy::None,
            witness: true,
            heartbeat: DEFAULT_HEARTBEAT,
            reply_timeout: DEFAULT_REPLY_TIMEOUT,
            lease: DEFAULT_LEASE,
            server_timeout: DEFAULT_SERVER_TIMEOUT,
            max_locks: DEFAULT_MAX_LOCKS,
            max_requests: DEFAULT_MAX_REQUESTS,
            max_waiters: DEFAULT_MAX_WAITERS,
            release_on_cancel: false,
        }
    }

    /// Reads the `PG*` variables in the table above, and takes the defaults for the others.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the variable that cannot be used.
    pub fn from_env() -> Result<Self, Error> {
        settings::Settings::default().into_config(process_variable)
    }

    /// A host name, an IP address without brackets, or the absolute path of the directory of the
    /// server's Unix-domain socket. Default: `localhost`.
    ///
    /// ```
    /// # use distlock::Config;
    /// let local = Config::new().host("/var/run/postgresql").user("app");
    /// let remote = Config::new().host("2001:db8::5").port(5433).user("app");
    /// # let _ = (local, remote);
    /// ```
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// The TCP port, or the number in the name of the socket. Default: 5432.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The role to connect as.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into()).filter(|user| !user.is_empty());
        self
    }

    /// The password; an empty one is none. It is wiped from memory with the last copy of the
    /// configuration, and `Debug` does not show it.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret::from(password.into())).filter(|it| !it.expose().is_empty());
        self
    }

    /// The database. Advisory locks belong to one database: every process that shares a lock must
    /// name the same one. Default: the user's name.
    #[must_use]
    pub fn dbname(mut self, dbname: impl Into<String>) -> Self {
        self.dbname = Some(dbname.into()).filter(|dbname| !dbname.is_empty());
        self
    }

    /// How the session calls itself in `pg_stat_activity`. Default: `distlock`.
    #[must_use]
    pub fn application_name(mut self, application_name: impl Into<String>) -> Self {
        self.application_name = application_name.into();
        self
    }

    /// The time for the whole of connecting: name lookup, handshake, authentication and checks.
    /// From 10 ms to 24 h. Default: 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// The authentication methods that the server may use. Anything else ends the connection
    /// before the password is used.
    ///
    /// Default: with a password, only SCRAM-SHA-256, in which the server proves itself and learns
    /// nothing; without one, only `none`.
    ///
    /// ```
    /// use distlock::{AuthMethods, Config};
    ///
    /// // A server that still stores MD5 passwords.
    /// let config = Config::new()
    ///     .user("app")
    ///     .password("s3cret")
    ///     .require_auth(AuthMethods::MD5 | AuthMethods::SCRAM_SHA_256);
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn require_auth(mut self, methods: AuthMethods) -> Self {
        self.require_auth = Some(methods);
        self
    }

    /// Whether a pooler or proxy may stand between that keeps each of its clients on one server
    /// process. Default: [`Proxy::None`], the manager refuses to work through any.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// Whether a second, short-lived connection tests that it cannot take a lock that the session
    /// has. It is made when an address is connected to for the first time, with the same
    /// credentials, so that the role needs a CONNECTION LIMIT of two at least. Default: `true`.
    ///
    /// Without it, a proxy that answers for the server, or an engine whose locks are none, may go
    /// unnoticed.
    #[must_use]
    pub fn witness(mut self, witness: bool) -> Self {
        self.witness = witness;
        self
    }

    /// How long the session is silent before it shows the server that it lives (H); up to twice as
    /// long while the manager holds no lock and waits for none. From 10 ms;
    /// H + [`reply_timeout`](Self::reply_timeout) is at most the [`lease`](Self::lease). Default:
    /// 2 s.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// How long an answer of the server may take before the session is given up (r). From 10 ms,
    /// and less than the [`lease`](Self::lease). Default: 3 s.
    #[must_use]
    pub fn reply_timeout(mut self, reply_timeout: Duration) -> Self {
        self.reply_timeout = reply_timeout;
        self
    }

    /// How long after sending the last message that the server answered the locks count as held
    /// (L). With 0.1 % for the drift of the clocks and 50 ms for the slack it must end before
    /// [`server_timeout`](Self::server_timeout). Default: 6 s.
    ///
    /// The four times go together. To learn of a lost server within a second:
    ///
    /// ```
    /// use std::time::Duration;
    /// # use distlock::Config;
    ///
    /// let config = Config::new()
    ///     .user("app")
    ///     .heartbeat(Duration::from_millis(300))
    ///     .reply_timeout(Duration::from_millis(600))
    ///     .lease(Duration::from_millis(1000))
    ///     .server_timeout(Duration::from_millis(2000));
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long the server waits for a silent session before it frees its locks (S, the
    /// session's `idle_session_timeout`), in whole milliseconds. At most 24 h. Default: 10 s.
    ///
    /// Servers before PostgreSQL 14 do not have it: there a process that hangs keeps its locks
    /// until it goes on or ends.
    #[must_use]
    pub fn server_timeout(mut self, server_timeout: Duration) -> Self {
        self.server_timeout = server_timeout;
        self
    }

    /// How many locks the manager holds at most, from 1 to 1,000,000. Each one takes room in the
    /// server's lock table, which all sessions share. Default: 1,024.
    #[must_use]
    pub fn max_locks(mut self, max_locks: u32) -> Self {
        self.max_locks = max_locks;
        self
    }

    /// How many calls may be under way at once, from 1 to 1,000,000. Default: 1,024.
    #[must_use]
    pub fn max_requests(mut self, max_requests: u32) -> Self {
        self.max_requests = max_requests;
        self
    }

    /// How many calls may wait for a lock that is held, here or by another process, up to
    /// 1,000,000; with 0, nobody waits. Default: 1,024.
    #[must_use]
    pub fn max_waiters(mut self, max_waiters: u32) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// Whether cancelling a lock's context also releases the lock in the database at once.
    ///
    /// Default: `false`, the database lock stays until the holder lets go of it, so that a holder
    /// that is slow to stop is still alone.
    #[must_use]
    pub fn release_on_cancel(mut self, release_on_cancel: bool) -> Self {
        self.release_on_cancel = release_on_cancel;
        self
    }

    /// The role to connect as; [`check`](Self::check) has made sure that there is one.
    pub(crate) fn user_name(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }

    /// The database to connect to.
    pub(crate) fn database(&self) -> &str {
        self.dbname.as_deref().unwrap_or_else(|| self.user_name())
    }

    /// The methods that the server may use; see [`require_auth`](Self::require_auth).
    pub(crate) fn auth_methods(&self) -> AuthMethods {
        let by_password = match self.password {
            Some(_) => AuthMethods::SCRAM_SHA_256,
            None => AuthMethods::NONE,
        };
        self.require_auth.unwrap_or(by_password)
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
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            // `Secret` prints a placeholder.
            .field("password", &self.password)
            .field("dbname", &self.dbname)
            .field("application_name", &self.application_name)
            .field("connect_timeout", &self.connect_timeout)
            .field("require_auth", &self.auth_methods())
            .field("options", &self.options)
            .field("read_write", &self.read_write)
            .field("ssl", &self.ssl)
            .field("proxy", &self.proxy)
            .field("witness", &self.witness)
            .field("heartbeat", &self.heartbeat)
            .field("reply_timeout", &self.reply_timeout)
            .field("lease", &self.lease)
            .field("server_timeout", &self.server_timeout)
            .field("max_locks", &self.max_locks)
            .field("max_requests", &self.max_requests)
            .field("max_waiters", &self.max_waiters)
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
