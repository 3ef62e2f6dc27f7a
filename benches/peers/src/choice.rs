//! Which vectors mean something for any client, and what a client other than a lock client may do
//! by choice: neither is an opinion of the code that judges, so both stand here as tables.

use crate::replay::format::{Step, Until, Vector};

/// Vectors (a star stands for any ending) that say nothing of other clients, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("a09-password-nul", "a NUL does harm only where the password goes in clear"),
    ("a32-standby*", "what a lock client demands of its server"),
    ("a33-warning*", "what a lock client demands of its server"),
    ("a36-*", "transactions are legitimate for other clients"),
    ("a37-older-minor", "an answer to protocol 3.2, which the others do not ask for"),
    ("a45-parameter-of-cockroachdb", "what a lock client demands of its server"),
    ("a45-process*", "what a lock client demands of its server"),
    ("a45-unlock*", "what a lock client demands of its server"),
    ("a45-version*", "what a lock client demands of its server"),
];

/// Vectors, and the choice of a client that does not mind them.
const CHOICES: &[(&str, &str)] = &[
    ("a06-boolean-all-ones", "any byte but 0 is true, as for the server itself"),
    ("a06-boolean-text", "any byte but 0 is true, as for the server itself"),
    ("a06-boolean-two", "any byte but 0 is true, as for the server itself"),
    ("a17-cleartext-without-password", "answers with an empty password"),
    ("a18-md5", "answers a request for MD5"),
    ("a18-md5-none-allowed", "answers a request for MD5"),
    ("a19-ok*", "trusts AuthenticationOk without an exchange"),
    ("a21-signature-with-more", "takes an extension behind the signature, as RFC 5802 allows"),
    ("a22-nonce-300*", "has no limit for the nonce"),
    ("a22-nonce-64*", "has no limit for the nonce"),
    ("a22-nonce-same", "takes a nonce to which the server has added nothing"),
    ("a23-iterations-100001", "takes more than 100,000 iterations"),
    ("a24-iterations-1", "takes fewer than 4,096 iterations"),
    ("a24-iterations-4095", "takes fewer than 4,096 iterations"),
    ("a25-first-extension", "takes an extension behind the count, as RFC 5802 allows"),
    ("a25-first-salt-empty", "takes an empty salt, as the grammar of RFC 5802 allows"),
    ("a27-plus-first-in-clear", "takes no notice of an offer of SCRAM-SHA-256-PLUS in clear"),
    ("a27-plus-last-in-clear", "takes no notice of an offer of SCRAM-SHA-256-PLUS in clear"),
    ("a28-*", "has no limit for the SCRAM attributes"),
    ("a30-notice-before-authentication", "takes notices before the authentication, as libpq does"),
    ("a32-between*", "knows no NotificationResponse unless it listens"),
    ("a32-refused*", "knows no NotificationResponse unless it listens"),
    ("a34-two-rows", "takes the first of two rows"),
];

/// Why a vector is not replayed here.
pub(crate) fn left_out(vector: &Vector) -> Option<&'static str> {
    if let Some((_, why)) = LEFT_OUT.iter().find(|(name, _)| is_meant(vector, name)) {
        return Some(why);
    }
    if !vector.requires.is_empty() {
        return Some("needs TLS, which is not built in here");
    }
    if vector.name.ends_with("-over-cap") {
        return Some("a length by one over a cap of distlock's own");
    }
    if ["string", "proxy"].iter().any(|key| vector.has(key)) {
        return Some("an option that is distlock's own");
    }
    let is_config = vector.outcomes.iter().any(|outcome| outcome.of == "config");
    let is_injection = vector.class == "A9";
    if is_config && !is_injection {
        return Some("an option that is distlock's own");
    }
    if vector.connections.len() > 1 || vector.has("witness") {
        return Some("about the next connections of a client that comes back by itself");
    }
    let steps = vector.connections.iter().flat_map(|connection| &connection.steps);
    let mut own =
        steps.filter(|step| matches!(step, Step::Alter(_) | Step::Good(Until::Statement(_))));
    own.next().map(|_| "about the questions that distlock asks after connecting")
}

/// The choice of a client that does not mind this vector, if that is one.
pub(crate) fn choice(vector: &Vector) -> Option<&'static str> {
    CHOICES.iter().find(|(name, _)| is_meant(vector, name)).map(|(_, why)| *why)
}

/// Whether a vector has this name, or begins with it if it ends in a star.
fn is_meant(vector: &Vector, name: &str) -> bool {
    match name.strip_suffix('*') {
        Some(beginning) => vector.name.starts_with(beginning),
        None => vector.name == name,
    }
}
