//! Whose certificate is taken for the server's, by `sslmode` (manual: libpq-ssl).

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::authority::{Authority, expired, named, params, params_for, self_signed};
use super::server::{Server, fails, works};
use super::support::TempCluster;

#[test]
fn the_right_certificate_is_taken_in_every_mode() {
    let server = Server::of(&Authority::new("ours"), &params());
    for mode in ["require", "verify-ca", "verify-full"] {
        for host in ["localhost", "127.0.0.1"] {
            let config = server.url(&format!("host={host} sslmode={mode} {}", server.root()));
            let manager = works(&config);
            assert!(server.tls_version().is_some_and(|version| version.starts_with("TLSv1.")));
            manager.close();
        }
    }
    works(&server.url("host=localhost sslmode=require"));
}

#[test]
fn a_chain_with_an_intermediate_authority_is_followed_to_the_root() {
    let root = Authority::new("root");
    let intermediate = root.subordinate("intermediate");
    let mut identity = intermediate.sign(&params());
    identity.certificate.push_str(&intermediate.certificate());
    let server = Server::with(TempCluster::builder(), &root, &identity);
    works(&server.verified());
}

#[test]
fn an_expired_certificate_is_refused_where_authorities_count() {
    let server = Server::of(&Authority::new("ours"), &expired());
    for mode in ["require", "verify-ca", "verify-full"] {
        let config = server.url(&format!("host=localhost sslmode={mode} {}", server.root()));
        fails(&config, &["it has expired", "clock"]);
    }
    works(&server.url("host=localhost sslmode=require"));
}

#[test]
fn another_host_is_refused_by_verify_full_and_told_apart() {
    let server = Server::of(&Authority::new("ours"), &params_for(&["db.internal", "*.example"]));
    fails(&server.verified(), &["not for the host 'localhost'", "db.internal", "*.example"]);
    works(&server.url(&format!("host=localhost sslmode=verify-ca {}", server.root())));
}

#[test]
fn a_literal_address_has_to_be_in_the_certificate_as_an_address() {
    let server = Server::of(&Authority::new("ours"), &params_for(&["localhost", "127-0-0-1.a"]));
    let config = server.url(&format!("host=127.0.0.1 sslmode=verify-full {}", server.root()));
    fails(&config, &["not for the host '127.0.0.1'"]);
    works(&server.verified());
}

#[test]
fn a_common_name_is_no_name_of_a_host() {
    let mut params = params_for(&[]);
    named(&mut params, "localhost");
    let server = Server::of(&Authority::new("ours"), &params);
    fails(&server.verified(), &["no subject alternative name"]);
}

#[test]
fn another_authority_is_refused_though_it_has_the_same_name() {
    let (ours, theirs) = (Authority::new("authority"), Authority::new("authority"));
    let server = Server::with(TempCluster::builder(), &ours, &theirs.sign(&params()));
    for mode in ["require", "verify-ca", "verify-full"] {
        let config = server.url(&format!("host=localhost sslmode={mode} {}", server.root()));
        fails(&config, &["certificate is not accepted", "sslrootcert"]);
    }
    works(&server.url("host=localhost sslmode=require"));
}

#[test]
fn a_self_signed_certificate_is_taken_only_where_it_is_trusted_itself_or_nobody_asks() {
    let identity = self_signed(&params());
    let server = Server::with(TempCluster::builder(), &Authority::new("ours"), &identity);
    fails(&server.verified(), &["certificate is not accepted", "none of the authorities"]);
    works(&server.url("host=localhost sslmode=require"));
    server.files.write("root.crt", &identity.certificate);
    works(&server.verified());
}

/// The bundle is that of the operating system; whether there is one is up to the machine.
#[test]
fn the_authorities_of_the_system_do_not_know_ours() {
    let server = Server::of(&Authority::new("ours"), &params());
    let config = server.url("host=localhost sslmode=verify-full sslrootcert=system");
    fails(&config, &["sslrootcert"]);
}

/// Set for the process whose operating system trusts our authority: a connection string.
const TRUSTING: &str = "DISTLOCK_TEST_TRUSTING_URL";

/// In a process of its own: the variables of this one are those of the other tests, too.
#[test]
fn the_authorities_of_the_system_verify_the_host_that_they_have_signed_for() {
    if let Ok(config) = std::env::var(TRUSTING) {
        works(&config);
        fails(&config.replace("host=localhost", "host=127.0.0.1"), &["not for the host"]);
        return println!("VERIFIED");
    }
    let authority = Authority::new("ours");
    let server = Server::of(&authority, &params_for(&["localhost"]));
    let config = server.url("host=localhost sslrootcert=system");
    let trusting = |bundle: &str| {
        let name = "the_authorities_of_the_system_verify_the_host_that_they_have_signed_for";
        let mut child = Command::new(std::env::current_exe().expect("our own path"));
        child.args(["--exact", &format!("verification::{name}"), "--nocapture"]);
        child.env(TRUSTING, &config).env("SSL_CERT_FILE", server.files.path(bundle));
        let output = child.env_remove("SSL_CERT_DIR").output().expect("starts itself");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success() && said.contains("VERIFIED"), said)
    };
    let (is_verified, said) = trusting("root.crt");
    assert!(is_verified, "{said}");
    server.files.write("other.crt", &Authority::new("other").certificate());
    let (is_verified, said) = trusting("other.crt");
    assert!(!is_verified, "{said}");
}

#[test]
fn a_server_without_tls_is_refused_in_every_mode_and_never_spoken_to_in_clear() {
    let cluster = TempCluster::builder().setting("log_connections", "on").start();
    let server = Server { cluster, files: super::server::Files::new() };
    server.files.write("root.crt", &Authority::new("ours").certificate());
    for mode in ["require", "verify-ca", "verify-full"] {
        let config = server.url(&format!("host=localhost sslmode={mode} {}", server.root()));
        fails(&config, &["the server has no TLS"]);
    }
    assert!(!server.cluster.log().contains("application_name=distlock"), "it was spoken to");
}

#[test]
fn files_that_cannot_be_used_are_told_by_their_parameters_before_anything_is_sent() {
    let authority = Authority::new("ours");
    let server = Server::of(&authority, &params());
    let files = &server.files;
    files.write("empty", "");
    files.write("text", "this is no certificate\n");
    files.write("damaged", &authority.certificate().replace("MII", "*II"));
    for name in ["missing", "empty", "text", "damaged"] {
        let root = files.parameter("sslrootcert", name);
        let error = fails(&server.url(&format!("host=localhost sslmode=verify-ca {root}")), &[]);
        assert!(error.is_config(), "{name}: {error}");
        assert!(error.to_string().contains("sslrootcert"), "{name}: {error}");
    }
    let (client, other) = (authority.sign(&params()), authority.sign(&params()));
    let good = files.client(&client);
    works(&format!("{} {good}", server.verified()));
    let key = files.path("client.key");
    for (text, mode) in [
        (client.key.as_str(), 0o644),
        (&client.key, 0o660),
        (&other.key, 0o600),
        (&client.certificate, 0o600),
        ("", 0o600),
        (&client.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), 0o600),
    ] {
        files.write("client.key", text);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("ours");
        let error = fails(&format!("{} {good}", server.verified()), &["sslkey"]);
        assert!(error.is_config(), "{error}");
        // The key is base64 in the file; no line of it may be shown.
        let secret = client.key.lines().nth(1).expect("a line of base64");
        assert!(!format!("{error} {error:?}").contains(secret));
    }
}
