//! What a manager connects with: the checked configuration, with everything looked up that it
//! refers to. Made once, when the manager is, and never again: every reconnect goes to the same
//! places under the same policy, whatever files and variables have become since.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{AuthMethods, Config, Secret};
use crate::error::Error;

/// A configuration that can be connected with.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: Config,
    /// The servers to try, in this order. Never empty.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Whether the order is drawn anew for each attempt (`load_balance_hosts=random`).
    pub(crate) shuffle: bool,
}

/// One server, and how to speak with it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) place: Place,
    /// The name that the server's certificate has to carry, and that errors show.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "certificates need it"))]
    pub(crate) host: String,
    /// Meant for this server alone.
    pub(crate) password: Option<Secret>,
    /// The authentication methods that this server may use.
    pub(crate) methods: AuthMethods,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A Unix-domain socket.
    Socket(PathBuf),
    /// An address, which needs no looking up.
    Address(SocketAddr),
    /// A name and a port.
    Name(String, u16),
}

impl Config {
    /// Checks the configuration and looks up what it refers to.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] says what cannot be used.
    pub(crate) fn into_plan(self) -> Result<Plan, Error> {
        self.check()?;
        let place = match (self.socket_path(), self.host.parse::<IpAddr>()) {
            (Some(path), _) => Place::Socket(path),
            (None, Ok(address)) => Place::Address(SocketAddr::new(address, self.port)),
            (None, Err(_)) => Place::Name(self.host.clone(), self.port),
        };
        let endpoint = Endpoint {
            place,
            host: self.host.clone(),
            password: self.password.clone(),
            methods: self.auth_methods(),
        };
        Ok(Plan { config: self, endpoints: vec![endpoint], shuffle: false })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}
