//! Service files, password files and the files of certificates.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::Plan;
use super::*;

/// A folder that is gone afterwards, and the environment whose home it is.
struct Home {
    path: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Home {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("distlock-config-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join(".postgresql")).unwrap();
        let variables = vec![("HOME", path.display().to_string())];
        Self { path, variables }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn file(&self, name: &str, mode: u32, text: &str) -> String {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn config(&self, text: &str) -> Result<Config, Error> {
        parse::parse(text)?.into_config(|name| {
            let (_, value) = self.variables.iter().find(|(variable, _)| *variable == name)?;
            Some(OsString::from(value))
        })
    }

    fn plan(&self, text: &str) -> Result<Plan, Error> {
        self.config(text)?.into_plan()
    }

    #[track_caller]
    fn refusal(&self, text: &str) -> String {
        let error = self.plan(text).expect_err(text);
        let shown = error.to_string();
        assert!(error.is_config() && !shown.contains(CANARY), "{text}: {shown}");
        assert!(!shown.contains(&*self.path.to_string_lossy()), "{text}: {shown}");
        shown
    }

    /// The passwords of the servers, separated by spaces.
    fn passwords(&self, text: &str) -> String {
        let endpoints = self.plan(text).unwrap().endpoints;
        let passwords = endpoints.iter().map(|endpoint| match &endpoint.password {
            Some(password) => password.expose(),
            None => "-",
        });
        passwords.collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[test]
fn a_service_comes_between_the_string_and_the_environment() {
    let home = Home::new().with("PGPORT", "7").with("PGUSER", "env").with("PGDATABASE", "env");
    home.file(
        ".pg_service.conf",
        0o644,
        "# a comment\n[other]\nhost=o\nnonsense\n\n  [main]  \n \t# another\nhost=s\nhost=later\n\
         user=service\nconnect_timeout=3  \r\napplication_name= a b\npassword=x=y\n[main]\n\
         host=third\n",
    );
    let rows = [
        ("service=main", "host=s|port=7|user=service|password=x=y|dbname=env|app= a b|timeout=3"),
        (
            "service=main host=h user=u",
            "host=h|port=7|user=u|password=x=y|dbname=env|app= a b|timeout=3",
        ),
        (
            "postgres://h?service=main&user=u&connect_timeout=10&password=&application_name=z",
            "host=h|port=7|user=u|dbname=env|app=z",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(changed(&home.config(text).unwrap()), expected, "{text}");
    }
    let home = home.with("PGSERVICE", "main");
    assert!(changed(&home.config("").unwrap()).starts_with("host=s|port=7|user=service"));
}

#[test]
fn the_files_of_services_are_searched_in_the_order_of_libpq() {
    let home = Home::new();
    home.file(".pg_service.conf", 0o644, "[a]\nhost=home\n");
    home.file("pg_service.conf", 0o644, "[a]\nhost=system\n[b]\nhost=system\n");
    let named = home.file("named", 0o644, "[a]\nhost=named\n");
    let system = home.path.display().to_string();
    let home = home.with("PGSYSCONFDIR", system);
    let host = |home: &Home, text: &str| home.config(text).unwrap().hosts.join(",");
    assert_eq!(host(&home, "service=a"), "home");
    assert_eq!(host(&home, "service=b"), "system");
    let other = format!("service=a servicefile={named}");
    assert_eq!(host(&home, &other), "named");
    assert_eq!(host(&home, &format!("service=b servicefile={named}")), "system");
    let home = home.with("PGSERVICEFILE", named);
    assert_eq!(host(&home, "service=a"), "named");
    assert!(home.refusal("service=c4nary").contains("no definition of the service"));
    assert!(home.refusal("service=''").contains("no definition of the service"));
    let text = home.refusal("service=a servicefile=/nonexistent/c4nary");
    assert!(text.contains("the file that servicefile names cannot be read"), "{text}");
}

#[test]
fn a_faulty_service_file_is_refused_by_its_line() {
    let long = format!("[a]\nuser={}\n", "x".repeat(1017));
    let rows = [
        ("[a]\nc4nary\n", "line 2 of ~/.pg_service.conf has no `=`"),
        ("[a]\nhost=x\nc4nary=1\n", "line 3 of ~/.pg_service.conf is not a known parameter"),
        ("[a]\nhost =x\n", "line 2 of ~/.pg_service.conf is not a known parameter"),
        ("[a]\nrequiressl=1\n", "line 2 of ~/.pg_service.conf is not a known parameter"),
        ("[a]\nservice=b\n", "refers to another service"),
        ("[a]\nservicefile=b\n", "refers to another service"),
        ("[a]\nldap://c4nary/x\n", "line 2 of ~/.pg_service.conf refers to an LDAP server"),
        (&long, "line 2 of ~/.pg_service.conf is too long"),
        ("[a]\nuser=a\0b\n", "line 2 of ~/.pg_service.conf is not UTF-8 text, or has a NUL"),
        ("[a]\nport=c4nary\n", "port (line 2 of the service file) is not a number"),
        ("[a]\nsslcrl=c4nary\n", "`sslcrl` (line 2 of the service file) is known to libpq"),
        ("[a]\nsslmode=prefer\n", "sslmode (line 2 of the service file) is prefer"),
    ];
    for (text, expected) in rows {
        let home = Home::new();
        home.file(".pg_service.conf", 0o644, text);
        let shown = home.refusal("service=a");
        assert!(shown.contains(expected), "{expected}: {shown}");
        // What is not asked for is not looked at.
        home.plan("user=u").unwrap();
    }
    let home = Home::new();
    home.file(".pg_service.conf", 0o644, &format!("[a]\nuser={}\n", "x".repeat(1016)));
    assert!(home.refusal("service=a").contains("user has 1016 bytes"));
    home.file(".pg_service.conf", 0o644, &"#\n".repeat(600_000));
    assert!(home.refusal("service=a").contains("1200000 bytes; at most 1048576"));
}

#[test]
fn the_password_file_gives_each_server_the_password_of_its_first_line() {
    let home = Home::new();
    home.file(
        ".pgpass",
        0o600,
        "#a:5432:d:u:comment\n\na:5432:d:u:pw-a\nb:*:d:*:pw-b\r\n*:7:*:u:pw-7\n\
         10.0.0.1:5432:d:u:ip\n\
         fe80\\:\\:1:5432:d:u:six\nlocalhost:5432:d:u:local\n/tmp/x:5432:d:u:dir\nc:5432:d:u:\n\
         c:5432:d:u:late\ne:5432:d:u:a\\:b\\\\c\\d:rest\nf:5432:d:u:tail\\\n",
    );
    let rows = [
        ("host=a", "pw-a"),
        ("host=a,b,c,zz", "pw-a pw-b - -"),
        ("host=a port=5433", "-"),
        ("host=A", "-"),
        ("host=a port=7", "pw-7"),
        ("host=b port=1 user=other", "pw-b"),
        ("host=a dbname=other", "-"),
        ("host=a hostaddr=10.0.0.1", "pw-a"),
        ("hostaddr=10.0.0.1", "ip"),
        ("hostaddr=fe80::1", "six"),
        ("host=,a hostaddr=10.0.0.1,10.0.0.1", "ip pw-a"),
        ("port=5432", "local"),
        ("host=/var/run/postgresql", "local"),
        ("host=/tmp/x", "dir"),
        ("host=/tmp/y", "-"),
        ("host=e", r"a:b\cd"),
        ("host=f", r"tail\"),
        ("host=a,b password=given", "given given"),
    ];
    for (text, expected) in rows {
        let text = if text.contains("user=") { text.to_owned() } else { format!("{text} user=u") };
        let text = if text.contains("dbname=") { text } else { format!("{text} dbname=d") };
        assert_eq!(home.passwords(&text), expected, "{text}");
    }
    // By the builder alone the home directory does not count.
    let plan = Config::new().host("a").user("u").dbname("d").into_plan().unwrap();
    assert!(plan.endpoints[0].password.is_none());
    let file = home.path.join(".pgpass");
    let plan = Config::new().host("a").user("u").dbname("d").passfile(&file).into_plan().unwrap();
    assert_eq!(plan.endpoints[0].password.as_ref().map(|it| it.expose()), Some("pw-a"));
    assert_eq!(plan.endpoints[0].methods, AuthMethods::SCRAM_SHA_256);
}

#[test]
fn a_password_counts_for_its_server_alone_and_decides_on_its_methods() {
    let home = Home::new();
    home.file(".pgpass", 0o600, "a:*:*:*:pw\n");
    let methods = |text: &str| -> Vec<String> {
        let endpoints = home.plan(text).unwrap().endpoints;
        endpoints.iter().map(|endpoint| endpoint.methods.to_string()).collect()
    };
    assert_eq!(methods("host=a,b user=u"), ["scram-sha-256", "none"]);
    assert_eq!(methods("host=a,b user=u require_auth=md5,none"), ["none,md5", "none,md5"]);
    let text = home.refusal("host=a,b user=u require_auth=md5");
    assert!(text.contains("needs a password, but none is configured for host 2 of 2"), "{text}");
}

#[test]
fn a_password_file_that_others_can_read_is_refused() {
    let home = Home::new();
    let named = home.file("pass", 0o640, "*:*:*:*:c4nary\n");
    let named = format!("host=a user=u passfile={named}");
    let text = home.refusal(&named);
    assert!(text.contains("the password file can be read or written by others"), "{text}");
    home.file(".pgpass", 0o602, "*:*:*:*:c4nary\n");
    let text = home.refusal("host=a user=u");
    assert!(text.contains("~/.pgpass can be read or written by others"), "{text}");
    // With a password it is not looked at.
    home.plan("host=a user=u password=x").unwrap();
    home.file(".pgpass", 0o600, "*:*:*:*:pw\n");
    assert_eq!(home.passwords("host=a user=u"), "pw");
    home.file(".pgpass", 0o400, "*:*:*:*:pw\n");
    assert_eq!(home.passwords("host=a user=u"), "pw");
}

#[test]
fn a_password_file_that_is_no_file_or_too_large_is_refused() {
    let home = Home::new();
    let text = |name: &str| format!("host=a user=u passfile={name}");
    assert!(home.refusal(&text("/dev/null")).contains("not a regular file"));
    assert!(home.refusal(&text(&home.path.to_string_lossy())).contains("not a regular file"));
    assert!(home.refusal(&text("/nonexistent/c4nary")).contains("cannot be read"));
    let pipe = home.path.join("pipe");
    make_pipe(&pipe);
    assert!(home.refusal(&text(&pipe.to_string_lossy())).contains("not a regular file"));
    // A name that leads to a good file will do.
    let target = home.file("target", 0o600, "*:*:*:*:pw\n");
    symlink(target, home.path.join("link")).unwrap();
    assert_eq!(home.passwords(&text(&home.path.join("link").to_string_lossy())), "pw");
    let large = home.file("large", 0o600, &"#\n".repeat(600_000));
    assert!(home.refusal(&text(&large)).contains("at most 1048576 are allowed"));
    let long = home.file("long", 0o600, &format!("\n#{}\n", "c4nary".repeat(2000)));
    assert!(home.refusal(&text(&long)).contains("line 2 of the password file"));
    let nul = home.file("nul", 0o600, "*:*:*:*:c4nary\0\n");
    assert!(home.refusal(&text(&nul)).contains("line 1 of the password file has a NUL"));
    // None of it counts for the default file when it is not there.
    assert_eq!(home.passwords("host=a user=u"), "-");
    let _ = fs::remove_dir_all(&home.path);
    assert_eq!(home.passwords("host=a user=u"), "-");
}

/// There is no call for it in the standard library.
fn make_pipe(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
    assert!(status.success());
}

#[cfg(feature = "tls")]
mod tls {
    use super::super::super::ssl::{RootCert, SslMode, SslOptions};
    use super::*;

    fn ssl(home: &Home, text: &str) -> SslOptions {
        home.plan(&format!("host=a user=u {text}")).expect(text).config.ssl
    }

    fn names(home: &Home, options: &SslOptions) -> (Option<String>, Option<String>) {
        let name = |path: &Option<PathBuf>| {
            let path = path.as_ref()?.strip_prefix(&home.path).ok()?;
            Some(path.display().to_string())
        };
        (name(&options.cert), name(&options.key))
    }

    #[test]
    fn authorities_are_found_at_home_and_demand_verification() {
        let home = Home::new();
        assert_eq!(ssl(&home, "sslmode=require").mode, SslMode::Require);
        for mode in ["verify-ca", "verify-full"] {
            let text = home.refusal(&format!("host=a user=u sslmode={mode}"));
            assert!(text.contains("which authorities to trust"), "{text}");
        }
        let root = PathBuf::from(home.file(".postgresql/root.crt", 0o644, "x"));
        let options = ssl(&home, "sslmode=require");
        assert_eq!(options.mode, SslMode::VerifyCa);
        assert_eq!(options.root_cert, Some(RootCert::File(root)));
        assert_eq!(ssl(&home, "").mode, SslMode::Disable);
        assert_eq!(ssl(&home, "sslrootcert=/x").mode, SslMode::VerifyFull);
        assert_eq!(ssl(&home, "sslrootcert=/x sslmode=verify-ca").mode, SslMode::VerifyCa);
        assert_eq!(ssl(&home, "sslrootcert=/x sslmode=disable").mode, SslMode::Disable);
        let options = ssl(&home, "sslrootcert=system");
        assert_eq!(
            (options.mode, options.root_cert),
            (SslMode::VerifyFull, Some(RootCert::System))
        );
        for mode in ["disable", "require", "verify-ca"] {
            let text = home.refusal(&format!("host=a user=u sslrootcert=system sslmode={mode}"));
            assert!(text.contains("only sslmode=verify-full is safe"), "{text}");
        }
        // The builder alone has no home.
        let builder = Config::new().user("u").ssl_mode(SslMode::VerifyFull);
        assert!(builder.clone().into_plan().is_err());
        builder.ssl_root_cert("/x").into_plan().unwrap();
    }

    #[test]
    fn a_list_of_revoked_certificates_at_home_is_not_passed_over() {
        let home = Home::new();
        home.file(".postgresql/root.crl", 0o644, "x");
        // As in libpq: it counts with authorities that are named, and with none other.
        assert_eq!(ssl(&home, "sslmode=require").mode, SslMode::Require);
        ssl(&home, "sslrootcert=system");
        ssl(&home, "");
        for text in ["sslrootcert=/x", "sslrootcert=/x sslmode=require sslcrl=''"] {
            let shown = home.refusal(&format!("host=a user=u {text}"));
            assert!(shown.contains("~/.postgresql/root.crl"), "{shown}");
            assert!(shown.contains("revoked") && shown.contains("move it away"), "{shown}");
        }
        home.file(".postgresql/root.crt", 0o644, "x");
        for mode in ["require", "verify-ca", "verify-full"] {
            let shown = home.refusal(&format!("host=a user=u sslmode={mode}"));
            assert!(shown.contains("~/.postgresql/root.crl"), "{shown}");
        }
        home.plan("host=/run/x user=u sslmode=verify-full").unwrap();
        fs::remove_file(home.path.join(".postgresql/root.crl")).unwrap();
        assert_eq!(ssl(&home, "sslmode=verify-full").mode, SslMode::VerifyFull);
    }

    #[test]
    fn the_clients_certificate_needs_a_key_that_is_its_owners_alone() {
        let home = Home::new();
        assert_eq!(names(&home, &ssl(&home, "sslmode=require")), (None, None));
        home.file(".postgresql/postgresql.crt", 0o644, "x");
        let text = home.refusal("host=a user=u sslmode=require");
        assert!(text.contains("~/.postgresql/postgresql.key) cannot be used"), "{text}");
        home.file(".postgresql/postgresql.key", 0o644, "x");
        let text = home.refusal("host=a user=u sslmode=require");
        assert!(text.contains("can be read or written by others"), "{text}");
        home.file(".postgresql/postgresql.key", 0o600, "x");
        let at_home = (
            Some(".postgresql/postgresql.crt".to_owned()),
            Some(".postgresql/postgresql.key".to_owned()),
        );
        assert_eq!(names(&home, &ssl(&home, "sslmode=require")), at_home);
        assert_eq!(names(&home, &ssl(&home, "sslmode=require sslcertmode=require")), at_home);
        assert_eq!(names(&home, &ssl(&home, "sslmode=require sslcertmode=disable")), (None, None));
        let (cert, key) = (home.file("c", 0o644, "x"), home.file("k", 0o600, "x"));
        let options = ssl(&home, &format!("sslmode=require sslcert={cert} sslkey={key}"));
        assert_eq!(names(&home, &options), (Some("c".to_owned()), Some("k".to_owned())));
        let text = home.refusal(&format!("host=a user=u sslcert={cert} sslkey={key}"));
        assert!(text.contains("sslcert is given, but sslmode is not"), "{text}");
        ssl(&home, &format!("sslmode=disable sslcert={cert} sslkey={key}"));
        let home = Home::new();
        let text = home.refusal("host=a user=u sslmode=require sslcertmode=require");
        assert!(text.contains("no certificate to send"), "{text}");
        let text = home.refusal("host=a user=u sslmode=require sslkey=/k");
        assert!(text.contains("sslkey is given without sslcert"), "{text}");
    }

    #[test]
    fn a_socket_has_no_tls_and_looks_for_no_file() {
        let home = Home::new();
        let plan = home.plan("host=/run/x user=u sslmode=verify-full").unwrap();
        assert_eq!(plan.config.ssl.mode, SslMode::Disable);
        let text = home.refusal("host=/run/x,a user=u sslmode=verify-full");
        assert!(text.contains("which authorities to trust"), "{text}");
        let text = home
            .refusal("host=/run/x user=u password=x sslrootcert=system channel_binding=require");
        assert!(text.contains("connected to without TLS"), "{text}");
    }

    #[test]
    fn a_verified_server_needs_a_name() {
        let home = Home::new();
        let text = home.refusal("host=db user=u sslrootcert=/etc/ca.pem;password=c4nary");
        assert!(text.contains("sslrootcert has `password=` in it"), "{text}");
        let text = home.refusal("hostaddr=::1 user=u sslrootcert=system");
        assert!(text.contains("hostaddr has an entry without a name"), "{text}");
        let plan = home.plan("hostaddr=::1 host=db user=u sslrootcert=system").unwrap();
        assert_eq!(plan.endpoints[0].host, "db");
        home.plan("hostaddr=::1 user=u sslrootcert=/x sslmode=verify-ca").unwrap();
    }
}
