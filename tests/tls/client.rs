//! The client's own certificate: demanded, given, not given, and of the wrong authority (manual:
//! ssl-tcp, "Using Client Certificates").

use super::authority::{Authority, named, params, params_for};
use super::server::{Server, fails, works};
use super::support::TempCluster;

/// A server that lets in who has a certificate for the role, signed by its authority.
fn demanding(authority: &Authority) -> Server {
    let builder = TempCluster::builder()
        .hba("hostssl all all 127.0.0.1/32 cert")
        .hba("hostssl all all ::1/128 cert")
        .hba("host all all all reject");
    Server::with(builder, authority, &authority.sign(&params()))
}

fn for_role(role: &str) -> rcgen::CertificateParams {
    let mut params = params_for(&[]);
    named(&mut params, role);
    params
}

#[test]
fn a_certificate_that_is_demanded_lets_in_whom_it_names() {
    let authority = Authority::new("ours");
    let server = demanding(&authority);
    let ours = server.files.client(&authority.sign(&for_role("postgres")));
    let manager = works(&format!("{} {ours}", server.verified()));
    let name = server.sql().value(
        "SELECT client_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'distlock'",
    );
    assert!(name.is_some_and(|name| name.contains("CN=postgres")));
    drop(manager);
    let others = server.files.client(&authority.sign(&for_role("somebody")));
    let error = fails(&format!("{} {others}", server.verified()), &["28000"]);
    assert!(error.is_auth(), "{error}");
}

#[test]
fn without_the_certificate_that_is_demanded_there_is_no_session() {
    let server = demanding(&Authority::new("ours"));
    let error = fails(&server.verified(), &["28000", "certificate"]);
    assert!(error.is_auth(), "{error}");
}

/// The server's alert may be lost with the connection that it resets; then only that is told.
#[test]
fn a_certificate_of_another_authority_is_not_let_in() {
    let server = demanding(&Authority::new("ours"));
    let theirs = Authority::new("theirs").sign(&for_role("postgres"));
    let theirs = server.files.client(&theirs);
    for version in ["TLSv1.2", "TLSv1.3"] {
        let limits =
            format!("ssl_min_protocol_version={version} ssl_max_protocol_version={version}");
        fails(&format!("{} {theirs} {limits}", server.verified()), &["cannot connect"]);
    }
    assert!(server.cluster.log().contains("could not accept SSL connection"));
}
