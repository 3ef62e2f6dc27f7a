//! The clients under test, each as its users call it: by its default configuration, with the
//! credentials of the vectors, and a timeout of 1 s where it has one of its own.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::replay::format::Vector;
use crate::replay::judge::{self, PASSWORD, USER};
use crate::replay::server::Address;

/// The statement that all of them run; distlock runs its own, which is the same.
const STATEMENT: &str = "SELECT pg_try_advisory_lock($1)";

/// A client's own timeout, where it has one.
const OWN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a task may take to be aborted.
const ABORT: Duration = Duration::from_secs(1);

/// Which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    Distlock,
    TokioPostgres,
    Sqlx,
}

impl Client {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 3] = [Self::Distlock, Self::TokioPostgres, Self::Sqlx];

    /// The name of its crate.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Distlock => "distlock",
            Self::TokioPostgres => "tokio-postgres",
            Self::Sqlx => "sqlx",
        }
    }

    /// The client of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|client| client.name() == name)
    }
}

/// A client that is connected.
pub(crate) enum Session {
    Distlock {
        manager: distlock::Manager,
        held: Vec<distlock::Lock>,
    },
    TokioPostgres {
        client: tokio_postgres::Client,
        connection: JoinHandle<()>,
        /// Kept, since one that is dropped is closed at the server: the session would not be idle.
        statement: Option<tokio_postgres::Statement>,
    },
    Sqlx {
        connection: sqlx::pool::PoolConnection<sqlx::Postgres>,
        _pool: sqlx::PgPool,
    },
}

impl Session {
    /// Connects.
    pub(crate) async fn connect(
        client: Client,
        vector: &Vector,
        address: &Address,
    ) -> Result<Self, String> {
        match client {
            Client::Distlock => distlock(vector, address),
            Client::TokioPostgres => tokio_postgres(vector, address).await,
            Client::Sqlx => sqlx(vector, address).await,
        }
    }

    /// Asks once for a lock, and keeps it.
    pub(crate) async fn ask(&mut self, key: i64) -> Result<bool, String> {
        match self {
            Self::Distlock { manager, held } => {
                let lock = manager.try_lock(&distlock::Context::background(), key);
                let lock = lock.map_err(|error| chain(&error))?;
                let granted = lock.is_some();
                held.extend(lock);
                Ok(granted)
            }
            Self::TokioPostgres { client, statement, .. } => {
                if statement.is_none() {
                    let prepared = client.prepare(STATEMENT).await;
                    *statement = Some(prepared.map_err(|error| chain(&error))?);
                }
                let statement = statement.as_ref().ok_or("no statement")?;
                let row = client.query_one(statement, &[&key]).await;
                row.and_then(|row| row.try_get(0)).map_err(|error| chain(&error))
            }
            Self::Sqlx { connection, .. } => {
                let query = sqlx::query_scalar(STATEMENT).bind(key);
                query.fetch_one(&mut **connection).await.map_err(|error| chain(&error))
            }
        }
    }

    /// What a client says of a lock that it holds, without being asked for another: only a lock
    /// client has something to say.
    pub(crate) fn lost(&self, patience: Duration) -> Option<String> {
        let Self::Distlock { held, .. } = self else { return None };
        let cause = held.first()?.context().done().wait_timeout(patience)?;
        Some(format!("the lock is lost: {cause}"))
    }

    /// Whether its tasks can be ended; one that blocks its thread cannot.
    pub(crate) async fn can_be_ended(self) -> bool {
        match self {
            Self::TokioPostgres { connection, .. } => {
                connection.abort();
                tokio::time::timeout(ABORT, connection).await.is_ok()
            }
            Self::Distlock { .. } | Self::Sqlx { .. } => true,
        }
    }
}

fn distlock(vector: &Vector, address: &Address) -> Result<Session, String> {
    let config = judge::config(vector, address).map_err(|error| chain(&error))?;
    let manager = distlock::Manager::connect(config).map_err(|error| chain(&error))?;
    Ok(Session::Distlock { manager, held: Vec::new() })
}

async fn tokio_postgres(vector: &Vector, address: &Address) -> Result<Session, String> {
    let mut config = tokio_postgres::Config::new();
    config
        .user(vector.setting("user").unwrap_or(USER))
        .ssl_mode(tokio_postgres::config::SslMode::Disable)
        .connect_timeout(OWN_TIMEOUT);
    match address {
        Address::Tcp(port) => config.host("127.0.0.1").port(*port),
        Address::Unix(folder) => config.host_path(folder),
    };
    if vector.has("password") {
        config.password(PASSWORD);
    }
    if let Some(name) = vector.setting("dbname") {
        config.dbname(name);
    }
    if let Some(name) = vector.setting("application_name") {
        config.application_name(name);
    }
    let connected = config.connect(tokio_postgres::NoTls).await;
    let (client, connection) = connected.map_err(|error| chain(&error))?;
    let connection = tokio::spawn(async move {
        // As its documentation shows it: an error of the connection is printed.
        if let Err(error) = connection.await {
            println!("note of the connection: {}", chain(&error).escape_debug());
        }
    });
    Ok(Session::TokioPostgres { client, connection, statement: None })
}

async fn sqlx(vector: &Vector, address: &Address) -> Result<Session, String> {
    let mut options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .username(vector.setting("user").unwrap_or(USER))
        .ssl_mode(sqlx::postgres::PgSslMode::Disable);
    options = match address {
        Address::Tcp(port) => options.host("127.0.0.1").port(*port),
        Address::Unix(folder) => options.socket(folder).port(5432),
    };
    if vector.has("password") {
        options = options.password(PASSWORD);
    }
    if let Some(name) = vector.setting("dbname") {
        options = options.database(name);
    }
    if let Some(name) = vector.setting("application_name") {
        options = options.application_name(name);
    }
    // Its only timeout is the pool's.
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).acquire_timeout(OWN_TIMEOUT);
    let pool = pool.connect_with(options).await.map_err(|error| chain(&error))?;
    // A session lock belongs to one connection, so its users hold on to one.
    let connection = pool.acquire().await.map_err(|error| chain(&error))?;
    Ok(Session::Sqlx { connection, _pool: pool })
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
