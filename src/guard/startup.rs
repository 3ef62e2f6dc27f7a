//! What a session starts with, taken from the configuration.

use crate::config::{AuthMethods, Config};
use crate::error::Error;
use crate::proto::handshake::{Methods, Startup};
use crate::proto::scram::{IterationLimits, NONCE_ENTROPY};
use crate::proto::settings::SessionSettings;

/// A fresh start, with fresh randomness and the same policy every time.
///
/// # Errors
///
/// When the operating system gives no randomness: a guessable nonce is not used instead.
pub(crate) fn startup(config: &Config, tcp: bool) -> Result<Startup, Error> {
    let mut entropy = [0; NONCE_ENTROPY];
    getrandom::fill(&mut entropy).map_err(|error| no_randomness(&error))?;
    let methods = config.auth_methods();
    let settings = config.server_settings();
    Ok(Startup {
        user: config.user_name().to_owned(),
        database: config.database().to_owned(),
        application_name: config.application_name.clone(),
        password: config.password.as_ref().map(|secret| secret.expose().to_owned().into()),
        methods: Methods {
            none: methods.contains(AuthMethods::NONE),
            password: methods.contains(AuthMethods::PASSWORD),
            md5: methods.contains(AuthMethods::MD5),
            scram_sha_256: methods.contains(AuthMethods::SCRAM_SHA_256),
        },
        entropy,
        iterations: IterationLimits::DEFAULT,
        settings: SessionSettings {
            idle_session_timeout_ms: settings.idle_session_timeout_ms,
            tcp_keepalives_idle_s: settings.keepalives_idle_s,
            tcp_keepalives_interval_s: settings.keepalives_interval_s,
            tcp_keepalives_count: settings.keepalives_count,
            tcp_user_timeout_ms: settings.tcp_user_timeout_ms,
            client_connection_check_interval_ms: settings.client_connection_check_interval_ms,
            tcp,
        },
    })
}

/// A seed for the jitter.
pub(crate) fn seed() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| no_randomness(&error))
}

fn no_randomness(error: &getrandom::Error) -> Error {
    let reason = format!("the operating system gives no random numbers ({error})");
    Error::Connect { address: "the server".into(), reason: reason.into(), source: None }
}
