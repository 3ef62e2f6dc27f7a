//! What a session starts with, taken from the plan.

use zeroize::Zeroizing;

use super::stream::{Address, Stream};
use crate::config::{AuthMethods, ChannelBinding, Config, Endpoint, Proxy};
use crate::error::Error;
use crate::proto::authentication::{self, Channel, Credentials, Methods};
use crate::proto::frontend::ProtocolVersion;
use crate::proto::handshake::{LockSession, Purpose, Startup};
use crate::proto::probe::{MARK_ENTROPY, Mark};
use crate::proto::scram::{IterationLimits, NONCE_ENTROPY};
use crate::proto::settings::{SessionSettings, Transport};

/// A fresh start, with fresh randomness and the same policy every time.
///
/// # Errors
///
/// When the operating system gives no randomness: a guessable nonce is not used instead.
pub(crate) fn startup(
    config: &Config,
    endpoint: &Endpoint,
    stream: &Stream,
    version: ProtocolVersion,
    purpose: Purpose,
) -> Result<Startup, Error> {
    let password = endpoint.password.as_ref();
    Ok(Startup {
        version,
        refuse_older: config.refuse_3_0,
        credentials: Credentials {
            user: config.user_name().to_owned(),
            password: password.map(|secret| Zeroizing::new(secret.expose().to_owned())),
            methods: methods(endpoint.methods),
            entropy: random::<NONCE_ENTROPY>()?,
            iterations: IterationLimits {
                min: *config.scram_iterations.start(),
                max: *config.scram_iterations.end(),
            },
            channel: Channel {
                is_tls: stream.is_tls(),
                end_point: stream.end_point(),
                binding: match config.ssl.channel_binding {
                    ChannelBinding::Disable => authentication::ChannelBinding::Disable,
                    ChannelBinding::Prefer => authentication::ChannelBinding::Prefer,
                    ChannelBinding::Require => authentication::ChannelBinding::Require,
                },
            },
        },
        database: config.database().to_owned(),
        application_name: config.application_name.clone(),
        options: config.options.clone(),
        purpose,
    })
}

/// The purpose of the manager's own session.
///
/// # Errors
///
/// As for [`startup`].
pub(crate) fn locks(config: &Config, address: &Address, witness: bool) -> Result<Purpose, Error> {
    let settings = config.server_settings();
    let transport = match (config.proxy, address) {
        (Proxy::SessionAffine, _) => Transport::Unknown,
        (Proxy::None, Address::Tcp(_)) => Transport::Tcp,
        (Proxy::None, Address::Unix(_)) => Transport::Unix,
    };
    Ok(Purpose::Locks(LockSession {
        settings: SessionSettings {
            lock_timeout_ms: settings.lock_timeout_ms,
            idle_session_timeout_ms: settings.idle_session_timeout_ms,
            tcp_keepalives_idle_s: settings.keepalives_idle_s,
            tcp_keepalives_interval_s: settings.keepalives_interval_s,
            tcp_keepalives_count: settings.keepalives_count,
            tcp_user_timeout_ms: settings.tcp_user_timeout_ms,
            client_connection_check_interval_ms: settings.client_connection_check_interval_ms,
            transport,
        },
        mark: Mark::new(random::<MARK_ENTROPY>()?),
        session_affine: config.proxy == Proxy::SessionAffine,
        read_write: config.read_write,
        witness,
    }))
}

/// A seed for the jitter.
pub(crate) fn seed() -> Result<u64, Error> {
    Ok(u64::from_ne_bytes(random()?))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    drawn(getrandom::fill)
}

/// What a source gives, all of it: there is no second best.
fn drawn<const N: usize>(
    source: impl FnOnce(&mut [u8]) -> Result<(), getrandom::Error>,
) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    match source(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => {
            let reason = format!("the operating system gives no random numbers ({error})");
            Err(Error::Connect {
                address: "the server".into(),
                reason: reason.into(),
                source: None,
            })
        }
    }
}

fn methods(methods: AuthMethods) -> Methods {
    Methods {
        none: methods.contains(AuthMethods::NONE),
        password: methods.contains(AuthMethods::PASSWORD),
        md5: methods.contains(AuthMethods::MD5),
        scram_sha_256: methods.contains(AuthMethods::SCRAM_SHA_256),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rehearsal;

    #[test]
    fn randomness_that_cannot_be_had_is_an_error_and_no_zeros() {
        let half = |bytes: &mut [u8]| {
            bytes[..NONCE_ENTROPY / 2].fill(7);
            Err(getrandom::Error::UNSUPPORTED)
        };
        let error = drawn::<NONCE_ENTROPY>(half).unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        assert!(error.to_string().contains("no random numbers"), "{error}");
        let all = |bytes: &mut [u8]| {
            bytes.fill(7);
            Ok(())
        };
        assert_eq!(drawn::<MARK_ENTROPY>(all).unwrap(), [7; MARK_ENTROPY]);
    }

    #[test]
    fn the_tests_of_the_protocol_count_rounds_as_the_configuration_does() {
        let limits = rehearsal::ITERATIONS;
        assert_eq!(Config::new().scram_iterations, limits.min..=limits.max);
    }
}
