//! A real server with TLS, and a folder with the client's files.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use distlock::{Context, Error, Manager};

use super::authority::{Authority, Identity};
use super::support::{Builder, Sql, TempCluster, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A server whose certificate is `identity`, and that takes TLS only over TCP.
pub(crate) struct Server {
    pub(crate) cluster: TempCluster,
    pub(crate) files: Files,
}

impl Server {
    /// With the certificate that an authority gives it; the client trusts that one.
    pub(crate) fn of(authority: &Authority, params: &rcgen::CertificateParams) -> Self {
        Self::with(TempCluster::builder(), authority, &authority.sign(params))
    }

    /// The client trusts `authority`, whoever signed the server's certificate.
    pub(crate) fn with(builder: Builder, authority: &Authority, identity: &Identity) -> Self {
        let cluster = builder.start();
        let server = Self { cluster, files: Files::new() };
        server.files.write("root.crt", &authority.certificate());
        server.install("server.crt", &identity.certificate);
        server.install("server.key", &identity.key);
        // Whose certificates of clients it takes; asked for only where pg_hba.conf says so.
        server.install("root.crt", &authority.certificate());
        let mut sql = server.sql();
        sql.query("ALTER SYSTEM SET ssl_ca_file = 'root.crt'");
        sql.query("ALTER SYSTEM SET ssl = on");
        sql.query("SELECT pg_reload_conf()");
        wait_until("the server has TLS", LIMIT, || {
            server.sql().value("SHOW ssl").as_deref() == Some("on")
        });
        server
    }

    pub(crate) fn sql(&self) -> Sql {
        self.cluster.sql()
    }

    /// A connection string for TCP with these parameters, and no more about TLS.
    pub(crate) fn url(&self, parameters: &str) -> String {
        let port = self.cluster.port();
        format!("port={port} user=postgres dbname=postgres {parameters}")
    }

    /// The strictest: `verify-full` of `localhost`.
    pub(crate) fn verified(&self) -> String {
        self.url(&format!("host=localhost sslmode=verify-full {}", self.root()))
    }

    /// The parameter that names the trusted authority.
    pub(crate) fn root(&self) -> String {
        self.files.parameter("sslrootcert", "root.crt")
    }

    /// What the server says of the sessions of managers: the version of TLS, or nothing.
    pub(crate) fn tls_version(&self) -> Option<String> {
        self.sql().value(
            "SELECT version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = 'distlock'",
        )
    }

    /// Writes a file that belongs to the server.
    fn install(&self, name: &str, text: &str) {
        let data = self.cluster.data_dir();
        let path = data.join(name);
        write_private(&path, text);
        let owner = fs::metadata(&data).expect("the data directory");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("we run as root, or as it");
    }
}

/// A folder of our own, that goes when it is dropped.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("distlock-tls-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        write_private(&self.path(name), text);
    }

    /// A parameter that names a file of the folder.
    pub(crate) fn parameter(&self, parameter: &str, name: &str) -> String {
        format!("{parameter}={}", self.path(name).display())
    }

    /// Writes a client's certificate and key, and gives the parameters that name them.
    pub(crate) fn client(&self, identity: &Identity) -> String {
        self.write("client.crt", &identity.certificate);
        self.write("client.key", &identity.key);
        let [cert, key] = [("sslcert", "client.crt"), ("sslkey", "client.key")]
            .map(|(parameter, name)| self.parameter(parameter, name));
        format!("{cert} {key}")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Nothing to be done about one that stays.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_private(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file of ours");
}

/// That a session with this connection string locks for real.
#[track_caller]
pub(crate) fn works(config: &str) -> Manager {
    let manager = Manager::connect(config).unwrap_or_else(|error| panic!("{error}\n{config}"));
    let lock = manager.try_lock(&Context::background(), 1).expect("answers").expect("free");
    lock.unlock().expect("it was held");
    manager
}

/// That it cannot be connected, for a reason that has all of these words in it.
#[track_caller]
pub(crate) fn fails(config: &str, words: &[&str]) -> Error {
    let error = Manager::connect(config).expect_err("refused");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    error
}
