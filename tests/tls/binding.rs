//! SCRAM-SHA-256-PLUS: used where it can be, demanded where that is configured, and what becomes of
//! one who stands in between (manual: sasl-authentication; libpq-connect, `channel_binding`).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use distlock::{Error, Manager};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::authority::{Authority, Identity, params, rsa_key, self_signed};
use super::fake::{SSL_REQUEST, answer, config, secured, serve, url};
use super::server::{Server, fails, works};
use super::support::TempCluster;

const SECRET: &str = "correct-horse-battery";

/// A server that asks the role of each method's name for it. The authority's kind of signature
/// decides the hash.
fn server(algorithm: &'static rcgen::SignatureAlgorithm) -> Server {
    let authority = Authority::with("ours", algorithm);
    let identity = authority.sign(&params());
    server_with(&authority, &identity)
}

fn server_with(authority: &Authority, identity: &Identity) -> Server {
    let mut builder = TempCluster::builder()
        .setting("password_encryption", "scram-sha-256")
        .setting("log_connections", "on");
    for (role, method) in [("scram", "scram-sha-256"), ("clear", "password"), ("md5role", "md5")] {
        builder = builder.hba(&format!("host all {role} all {method}"));
        builder = builder.hba(&format!("local all {role} {method}"));
    }
    let server = Server::with(builder, authority, identity);
    let mut sql = server.sql();
    for (role, encryption) in
        [("scram", "scram-sha-256"), ("clear", "scram-sha-256"), ("md5role", "md5")]
    {
        sql.query(&format!(
            "SET password_encryption = '{encryption}'; CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'"
        ));
    }
    server
}

/// As this role, with its password and these parameters. The last `user` counts.
fn role(server: &Server, role: &str, parameters: &str) -> String {
    format!("{} user={role} password={SECRET} {parameters}", server.verified())
}

#[test]
fn a_demanded_binding_is_had_with_every_hash_and_version() {
    let algorithms = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384];
    for algorithm in algorithms {
        let server = server(algorithm);
        for version in ["TLSv1.2", "TLSv1.3"] {
            let only =
                format!("ssl_min_protocol_version={version} ssl_max_protocol_version={version}");
            for binding in ["require", "prefer", "disable"] {
                let parameters = format!("channel_binding={binding} {only}");
                works(&role(&server, "scram", &parameters));
            }
        }
    }
}

#[test]
fn a_demanded_binding_is_had_with_rsa() {
    for algorithm in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_RSA_SHA384, &rcgen::PKCS_RSA_SHA512] {
        let authority = Authority::rsa("ours", algorithm);
        let identity = authority.sign_key(&params(), &rsa_key(algorithm));
        let server = server_with(&authority, &identity);
        works(&role(&server, "scram", "channel_binding=require"));
    }
}

#[test]
fn a_demanded_binding_refuses_every_other_method_and_says_which() {
    let server = server(&rcgen::PKCS_ECDSA_P256_SHA256);
    let require = "channel_binding=require";
    for (user, methods) in [
        ("postgres", "none,scram-sha-256"),
        ("clear", "password,scram-sha-256"),
        ("md5role", "md5,scram-sha-256"),
    ] {
        let parameters = format!("require_auth={methods} {require}");
        let error = fails(&role(&server, user, &parameters), &["channel_binding=require"]);
        assert!(error.is_auth() && error.sqlstate().is_none(), "{error}");
        assert!(!format!("{error} {error:?}").contains(SECRET));
        works(&role(&server, user, &format!("require_auth={methods}")));
    }
    let log = server.cluster.log();
    assert!(!log.contains("password authentication failed"), "the password was used: {log}");
}

#[test]
fn a_password_in_clear_goes_to_a_verified_server_alone_and_only_when_that_is_allowed() {
    let server = server(&rcgen::PKCS_ECDSA_P256_SHA256);
    works(&role(&server, "clear", "require_auth=password"));
    assert!(fails(&role(&server, "clear", ""), &["require_auth"]).is_auth());
    for mode in ["disable", "require", "verify-ca"] {
        let parameters = format!("require_auth=password sslmode={mode}");
        assert!(fails(&role(&server, "clear", &parameters), &["verify-full"]).is_config());
    }
}

#[test]
fn a_demanded_binding_refuses_a_connection_without_tls() {
    let server = server(&rcgen::PKCS_ECDSA_P256_SHA256);
    let login = format!("user=scram password={SECRET} channel_binding=require");
    let clear = server.url(&format!("host=127.0.0.1 sslmode=disable {login}"));
    let socket = format!("{} {login}", server.cluster.socket_config_string());
    for config in [clear, socket] {
        fails(&config, &["channel_binding", "TLS"]);
    }
}

#[test]
fn a_certificate_without_a_hash_is_refused_only_where_binding_is_demanded() {
    let server = server(&rcgen::PKCS_ED25519);
    let error = fails(&role(&server, "scram", "channel_binding=require"), &["Ed25519", "RFC 5929"]);
    assert!(error.is_auth(), "{error}");
    works(&role(&server, "scram", "channel_binding=prefer"));
    works(&role(&server, "scram", "channel_binding=disable"));
}

/// What the one in between does with the server's list of mechanisms.
#[derive(Clone, Copy, PartialEq)]
enum Meddling {
    Nothing,
    /// Takes SCRAM-SHA-256-PLUS off.
    Strips,
}

/// One who stands between client and server, with a certificate of his own for the client, and
/// passes everything on.
fn between(server: &Server, meddling: Meddling) -> u16 {
    let upstream = server.cluster.port();
    let config = Arc::new(config(&self_signed(&params()), &[]));
    serve(move |mut client| {
        answer(&mut client, b"S");
        let mut client = secured(client, &config);
        let mut server = upstream_tls(upstream);
        // The start of a session goes by turns. However it ends, the client tells.
        let _ = pass_by_turns(&mut client, &mut server, meddling);
    })
}

fn pass_by_turns(
    client: &mut (impl Read + Write),
    server: &mut (impl Read + Write),
    meddling: Meddling,
) -> io::Result<()> {
    const OFFER: &[u8] = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    const STRIPPED: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    let mut bytes = [0; 4096];
    loop {
        let count = client.read(&mut bytes)?;
        server.write_all(&bytes[..count])?;
        server.flush()?;
        let count = server.read(&mut bytes)?;
        let said = &bytes[..count];
        // Behind a NegotiateProtocolVersion, from a server that is not new.
        match said.strip_suffix(OFFER).filter(|_| meddling == Meddling::Strips) {
            Some(before) => client.write_all(&[before, STRIPPED].concat())?,
            None => client.write_all(said)?,
        }
        client.flush()?;
        if count == 0 {
            return Ok(());
        }
    }
}

fn upstream_tls(port: u16) -> StreamOwned<ClientConnection, TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.write_all(&SSL_REQUEST).expect("it is there");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(answer, *b"S");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    StreamOwned::new(connection, stream)
}

/// Believes everybody, as one in between can afford to.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Nobody is verified here, so TLS alone does not show who is in between; the binding does. That
/// the server refuses also proves that PLUS was used at all.
#[test]
fn one_in_between_who_passes_everything_on_is_found_out_by_the_server() {
    let server = server(&rcgen::PKCS_ECDSA_P256_SHA256);
    let port = between(&server, Meddling::Nothing);
    for binding in ["prefer", "require"] {
        let login = format!("user=scram password={SECRET} channel_binding={binding}");
        let error =
            fails(&url(port, &format!("sslmode=require {login}")), &["channel binding check"]);
        assert!(matches!(error, Error::Server { .. }), "{error:?}");
    }
    // Without binding, nobody notices.
    let login = format!("user=scram password={SECRET} channel_binding=disable");
    let _ =
        Manager::connect(url(port, &format!("sslmode=require connect_timeout=1 {login}")).as_str());
    let log = server.cluster.log();
    assert!(log.contains("connection authorized: user=scram"), "{log}");
}

#[test]
fn one_in_between_who_takes_the_binding_off_the_list_is_found_out() {
    let server = server(&rcgen::PKCS_ECDSA_P256_SHA256);
    let port = between(&server, Meddling::Strips);
    let login = |binding| {
        let login = format!("user=scram password={SECRET} channel_binding={binding}");
        url(port, &format!("sslmode=require {login}"))
    };
    // The server reads from our header that we could, and were told that it cannot.
    let error = fails(&login("prefer"), &["channel binding negotiation"]);
    assert!(matches!(error, Error::Server { .. }), "{error:?}");
    let error = fails(&login("require"), &["channel_binding=require", "without channel binding"]);
    assert!(error.is_auth(), "{error}");
}
