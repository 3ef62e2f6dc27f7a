//! Whether anything may stand between this process and the server.

/// What may stand between a manager and the PostgreSQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Proxy {
    /// Nothing: the process that the server announces is the one that runs the statements.
    #[default]
    None,
    /// A pooler or proxy that keeps each of its clients on one server process for as long as the
    /// client is connected, such as PgBouncer in session mode, or Amazon RDS Proxy and Neon.
    ///
    /// Everything else is still tested, and a second connection at every start of a session
    /// ([`Config::witness`](crate::Config::witness)) finds out a pooler that shares a server
    /// process among its clients, as in transaction mode. Without that one, the first manager
    /// behind such a pooler believes what is said here, and its locks exclude nobody. One lock more
    /// of the server's table is in use for as long as the session lives.
    SessionAffine,
}
