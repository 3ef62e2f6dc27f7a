//! TLS: against a real server whose certificates are made here, and against fake ones that do what
//! no real one does.
//!
//! `authority` makes certificates, `server` the real server, `fake` the others. The stories:
//! `verification` (whose certificate is taken), `client` (ours), `binding` (SCRAM-SHA-256-PLUS),
//! `negotiation` (how TLS begins, and what must not end it), `work` (locks through it).

mod support;

#[path = "tls/authority.rs"]
mod authority;
#[path = "tls/binding.rs"]
mod binding;
#[path = "tls/client.rs"]
mod client;
#[path = "tls/fake.rs"]
mod fake;
#[path = "tls/negotiation.rs"]
mod negotiation;
#[path = "tls/server.rs"]
mod server;
#[path = "tls/verification.rs"]
mod verification;
#[path = "tls/work.rs"]
mod work;
