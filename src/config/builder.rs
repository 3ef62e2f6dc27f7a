//! The setters of a [`Config`] about the server and the connection to it; those about limits and
//! times are in `limits`. They accept everything: `check` and `plan` look at the whole.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::auth::RequireAuth;
use super::ssl::{ChannelBinding, RootCert, SslMode, SslNegotiation, TlsVersion};
use super::{AuthMethods, Config, Secret, apply};

impl Config {
    /// A host name, an IP address without brackets, or the absolute path of the directory of the
    /// server's Unix-domain socket. Default: `localhost`.
    ///
    /// Several, up to 32, are separated by commas. They are tried in turn until one is the primary;
    /// all of them must be servers of one cluster, or else there are several lock tables.
    ///
    /// ```
    /// # use distlock::Config;
    /// let local = Config::new().host("/var/run/postgresql").user("app");
    /// let remote = Config::new().host("2001:db8::5").port(5433).user("app");
    /// let either = Config::new().host("db1.internal,db2.internal").user("app");
    /// # let _ = (local, remote, either);
    /// ```
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts = apply::list(&host.into());
        self.has_no_hosts = false;
        self
    }

    /// Several hosts with their ports, instead of [`host`](Self::host) and [`port`](Self::port);
    /// one at least.
    ///
    /// ```
    /// # use distlock::Config;
    /// let config = Config::new().hosts([("db1", 5432), ("db2", 5433)]).user("app");
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = (H, u16)>) -> Self {
        (self.hosts, self.ports) =
            hosts.into_iter().map(|(host, port)| (host.into(), port)).unzip();
        // Not the default: who has computed the list does not mean whatever runs on this machine.
        self.has_no_hosts = self.hosts.is_empty();
        self
    }

    /// The addresses to connect to, so that no name has to be looked up: one for each host, or the
    /// same list without hosts. An empty entry leaves a host to be looked up.
    ///
    /// The host stays what the server's certificate must name, and what the password file is
    /// searched for. An empty text takes away the addresses that a string or `PGHOSTADDR` gave;
    /// naming another host does not.
    #[must_use]
    pub fn hostaddr(mut self, hostaddr: impl Into<String>) -> Self {
        self.hostaddrs = apply::list(&hostaddr.into());
        self
    }

    /// The TCP port, or the number in the name of the socket, for all hosts. Default: 5432.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports = vec![port];
        self
    }

    /// Whether the hosts, and the addresses of each, are tried in a random order, drawn anew each
    /// time (`load_balance_hosts=random`). Default: `false`, in the order that is given.
    #[must_use]
    pub fn load_balance_hosts(mut self, load_balance_hosts: bool) -> Self {
        self.load_balance_hosts = load_balance_hosts;
        self
    }

    /// Whether the session has to be able to write, and not only to lock
    /// (`target_session_attrs=read-write`). That the server is the primary is asked for in any
    /// case. Default: `false`.
    #[must_use]
    pub fn read_write(mut self, read_write: bool) -> Self {
        self.read_write = read_write;
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

    /// The password file, for when no password is given: lines of
    /// `host:port:database:user:password` with `*` for any (manual: libpq-pgpass). It must be a
    /// regular file that nobody but its owner can read or write. Default: `~/.pgpass` where a
    /// connection string or the environment is read, and else none.
    #[must_use]
    pub fn passfile(mut self, passfile: impl Into<PathBuf>) -> Self {
        self.passfile = Some(passfile.into()).filter(|path| !path.as_os_str().is_empty());
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

    /// Command-line options for the server process, such as `-c work_mem=1MB`. The settings that
    /// the manager rests on are set and read back afterwards, so they cannot be changed here.
    #[must_use]
    pub fn options(mut self, options: impl Into<String>) -> Self {
        self.options = Some(options.into()).filter(|options| !options.is_empty());
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
    /// `password`, the password in clear text, needs [`SslMode::VerifyFull`] and TCP.
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
        self.require_auth = Some(RequireAuth::Only(methods));
        self
    }

    /// How often the server may have hashed the password (SCRAM). Fewer rounds make it easier to
    /// guess the password from what a false server has seen; more cost time at each connection.
    /// Default: 4,096, the least that RFC 7677 allows, to 100,000.
    #[must_use]
    pub fn scram_iterations(mut self, rounds: RangeInclusive<u32>) -> Self {
        self.scram_iterations = rounds;
        self
    }

    /// Whether the connection is protected by TLS, for which the feature `tls` has to be enabled.
    /// Default: [`SslMode::VerifyFull`] with an [`ssl_root_cert`](Self::ssl_root_cert), else
    /// [`SslMode::Disable`]. A Unix-domain socket has no TLS.
    ///
    /// ```
    /// use distlock::{Config, RootCert, SslMode};
    ///
    /// let config = Config::new()
    ///     .host("db.internal")
    ///     .user("app")
    ///     .ssl_mode(SslMode::VerifyFull)
    ///     .ssl_root_cert(RootCert::System);
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn ssl_mode(mut self, mode: SslMode) -> Self {
        self.ssl_mode = Some(mode);
        self
    }

    /// Whose signatures on the server's certificate are trusted: a file of certificates in PEM
    /// form, or those of the operating system, which demand [`SslMode::VerifyFull`].
    #[must_use]
    pub fn ssl_root_cert(mut self, authorities: impl Into<RootCert>) -> Self {
        self.ssl.root_cert = Some(authorities.into());
        self
    }

    /// The client's certificate and its key, files in PEM form. Nobody but the owner may be able to
    /// read the key.
    #[must_use]
    pub fn ssl_client_cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        (self.ssl.cert, self.ssl.key) = (Some(cert.into()), Some(key.into()));
        self
    }

    /// How TLS begins. Default: [`SslNegotiation::Postgres`].
    #[must_use]
    pub fn ssl_negotiation(mut self, negotiation: SslNegotiation) -> Self {
        self.ssl.negotiation = negotiation;
        self
    }

    /// Whether the server is told in clear which host is meant (SNI). Default: `true`.
    #[must_use]
    pub fn ssl_sni(mut self, sni: bool) -> Self {
        self.ssl.sni = sni;
        self
    }

    /// The versions of TLS to use. Default: TLS 1.2 and 1.3.
    #[must_use]
    pub fn ssl_versions(mut self, versions: RangeInclusive<TlsVersion>) -> Self {
        (self.ssl.min_version, self.ssl.max_version) = versions.into_inner();
        self
    }

    /// Whether SCRAM is bound to the TLS connection. With [`ChannelBinding::Require`] no other
    /// method is used. Default: [`ChannelBinding::Prefer`].
    #[must_use]
    pub fn channel_binding(mut self, channel_binding: ChannelBinding) -> Self {
        self.ssl.channel_binding = channel_binding;
        self
    }

    /// Whether our system looks after a silent TCP connection. Default: `true`. The heartbeat is
    /// faster by far unless the system is told to hurry.
    #[must_use]
    pub fn keepalives(mut self, keepalives: bool) -> Self {
        self.socket.keepalives = keepalives;
        self
    }

    /// After how long a silence our system looks, in whole seconds. Default: the system's.
    #[must_use]
    pub fn keepalives_idle(mut self, idle: Duration) -> Self {
        self.socket.keepalives_idle = Some(idle);
        self
    }

    /// How long it waits before it looks again, in whole seconds. Default: the system's.
    #[must_use]
    pub fn keepalives_interval(mut self, interval: Duration) -> Self {
        self.socket.keepalives_interval = Some(interval);
        self
    }

    /// After how many looks in vain it gives the connection up. Default: the system's.
    #[must_use]
    pub fn keepalives_count(mut self, count: u32) -> Self {
        self.socket.keepalives_count = Some(count);
        self
    }

    /// How long what was sent may stay unacknowledged before our system gives the connection up, in
    /// whole milliseconds. Default: the system's.
    #[must_use]
    pub fn tcp_user_timeout(mut self, timeout: Duration) -> Self {
        self.socket.tcp_user_timeout = Some(timeout);
        self
    }
}
