//! What a manager connects with: the checked configuration, with everything looked up that it
//! refers to. Made once, when the manager is, and never again: every reconnect goes to the same
//! places under the same policy, whatever files and variables have become since.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::hosts::{self, Server};
use super::passfile::{Login, Passfile};
use super::ssl::{ChannelBinding, SslMode, SslOptions};
use super::{AuthMethods, Config, Secret, certificates, refuse};
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
    #[cfg_attr(
        not(any(fuzzing, feature = "tls", feature = "__internals")),
        allow(dead_code, reason = "certificates need it")
    )]
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
    /// Checks the configuration and looks up what it refers to: the password file and the files of
    /// certificates.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] says what cannot be used.
    pub(crate) fn into_plan(mut self) -> Result<Plan, Error> {
        self.check()?;
        let servers = hosts::servers(&self)?;
        self.ssl = certificates::resolve(&self, &servers)?;
        let passfile = match self.password {
            Some(_) => None,
            None => Passfile::read(&self)?,
        };
        let mut endpoints = Vec::with_capacity(servers.len());
        let count = servers.len();
        for (index, server) in servers.into_iter().enumerate() {
            let subject = match count {
                1 => "the server".to_owned(),
                _ => format!("host {} of {count}", index + 1),
            };
            endpoints.push(self.endpoint(server, passfile.as_ref(), &subject)?);
        }
        let shuffle = self.load_balance_hosts;
        Ok(Plan { config: self, endpoints, shuffle })
    }

    fn endpoint(
        &self,
        server: Server,
        passfile: Option<&Passfile>,
        subject: &str,
    ) -> Result<Endpoint, Error> {
        let login = Login {
            host: &server.host,
            port: server.port,
            database: self.database(),
            user: self.user_name(),
        };
        let password = match (&self.password, passfile) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(passfile)) => passfile.find(login)?,
            (None, None) => None,
        };
        let mut methods = self.methods(password.is_some(), subject)?;
        let is_socket = matches!(server.place, Place::Socket(_));
        if self.ssl.channel_binding == ChannelBinding::Require {
            methods = self.with_channel_binding(methods, is_socket, subject)?;
        }
        if methods.contains(AuthMethods::PASSWORD)
            && (is_socket || self.ssl.mode != SslMode::VerifyFull)
        {
            return refuse(format_args!(
                "require_auth allows `password`, the password in clear text, but {subject} is not \
                 connected to with sslmode=verify-full, so anyone could answer and be told the \
                 password; remove `password` from require_auth, or use TCP and verify-full"
            ));
        }
        if password.is_none() && !methods.contains(AuthMethods::NONE) {
            return refuse(format_args!(
                "require_auth is {methods}, which needs a password, but none is configured for \
                 {subject}; use Config::password, set PGPASSWORD, or write it into the password \
                 file"
            ));
        }
        Ok(Endpoint { place: server.place, host: server.host, password, methods })
    }

    /// What `require_auth` comes to for a server.
    fn methods(&self, has_password: bool, subject: &str) -> Result<AuthMethods, Error> {
        let by_default = AuthMethods::by_default(has_password);
        let Some(required) = self.require_auth else { return Ok(by_default) };
        match required.methods(has_password) {
            Some(methods) => Ok(methods),
            None => refuse(format_args!(
                "require_auth is {required}, which leaves no method for {subject}: {} only \
                 {by_default} is allowed by default; {}",
                if has_password { "with a password" } else { "without a password" },
                match has_password {
                    true => "name the methods to accept instead, such as md5",
                    false => "configure a password, or name the methods to accept",
                }
            )),
        }
    }

    /// Of all methods only SCRAM can be bound to the channel.
    fn with_channel_binding(
        &self,
        methods: AuthMethods,
        is_socket: bool,
        subject: &str,
    ) -> Result<AuthMethods, Error> {
        if is_socket || self.ssl.mode == SslMode::Disable {
            return refuse(format_args!(
                "channel_binding is require, but {subject} is connected to without TLS; use TCP \
                 with sslmode=verify-full, verify-ca or require"
            ));
        }
        if !methods.contains(AuthMethods::SCRAM_SHA_256) {
            return refuse(format_args!(
                "channel_binding is require, which needs scram-sha-256 and so a password, but \
                 {subject} may only use {methods}; configure a password, and allow scram-sha-256 \
                 in require_auth"
            ));
        }
        Ok(AuthMethods::SCRAM_SHA_256)
    }

    /// What is in force about TLS, before files are looked for: who names authorities wants the
    /// server to be verified.
    pub(super) fn ssl_options(&self) -> SslOptions {
        let mut ssl = self.ssl.clone();
        ssl.mode = match (self.ssl_mode, &ssl.root_cert) {
            (Some(mode), _) => mode,
            (None, Some(_)) => SslMode::VerifyFull,
            (None, None) => SslMode::Disable,
        };
        ssl
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
