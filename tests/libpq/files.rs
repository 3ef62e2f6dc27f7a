//! Service files and password files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use distlock::conninfo;

use super::generate::Dice;
use super::library::libpq;
use super::values::{disagreement, environment, is_accepted};

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("distlock-libpq-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file for the test");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn generated_service_files_are_read_as_libpq_reads_them() {
    let folder = Folder::new("service");
    let mut dice = Dice::new(0x5eed_0002);
    let texts: Vec<String> = (0..600).map(|_| dice.service_file()).collect();
    let starts: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let path = folder.file(&format!("{index}"), text);
            let variables = [("PGSERVICEFILE", path.as_str()), ("PGPORT", "7"), ("PGUSER", "env")];
            let asked = dice.pick(&[
                "service=a target_session_attrs=-",
                "service=b user=u target_session_attrs=-",
                "service=a target_session_attrs=- host=x hostaddr='' port='' sslmode=disable",
                "postgres://h:7/d?service=a&target_session_attrs=-",
            ]);
            (environment(&variables), asked)
        })
        .collect();
    let (answers, _) = libpq().start(&starts);
    let mut accepted = 0;
    let mut wrong = Vec::new();
    for ((start, started), text) in starts.iter().zip(&answers).zip(&texts) {
        accepted += usize::from(is_accepted(started));
        // What the parameters come to together is looked at elsewhere.
        if is_accepted(started) || is_about_the_file(&started.error) {
            wrong.extend(disagreement(start, started).map(|it| format!("{text}\n{it}")));
        }
    }
    println!("{} files, {accepted} accepted", texts.len());
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!((100..500).contains(&accepted), "{accepted}");
}

fn is_about_the_file(error: &str) -> bool {
    error.contains("service")
}

#[test]
fn service_files_are_searched_as_libpq_searches_them() {
    let folder = Folder::new("search");
    let home = folder.0.display().to_string();
    folder.file(".pg_service.conf", "[a]\nhost=home\nport=1\n[bad]\nx\n");
    folder.file("pg_service.conf", "[a]\nhost=system\n[b]\nhost=system\nservice=a\n[c]\nhost=c\n");
    let named = folder.file("named", "[a]\nhost=named\n[long]\n");
    let long = folder.file("long", &format!("[a]\nhost={}\n", "x".repeat(1017)));
    let fits = folder.file("fits", &format!("[a]\nuser={}\n", "x".repeat(1016)));
    let variables: [&[(&str, &str)]; 6] = [
        &[("HOME", &home)],
        &[("HOME", &home), ("PGSYSCONFDIR", &home), ("PGPORT", "7")],
        &[("HOME", "/nonexistent"), ("PGSYSCONFDIR", &home), ("PGSERVICE", "c")],
        &[("HOME", &home), ("PGSYSCONFDIR", &home), ("PGSERVICEFILE", &named)],
        &[("PGSERVICEFILE", &long)],
        &[("PGSERVICEFILE", &fits)],
    ];
    let texts = ["", "service=a", "service=b", "service=c port=9", "service=bad", "service=none"];
    let texts = texts.map(|text| format!("{text} target_session_attrs=-"));
    let starts: Vec<_> = variables
        .iter()
        .flat_map(|variables| texts.iter().map(|text| (environment(variables), text.as_str())))
        .collect();
    let (answers, _) = libpq().start(&starts);
    let wrong: Vec<_> = starts
        .iter()
        .zip(&answers)
        .filter_map(|(start, started)| disagreement(start, started))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(answers.iter().filter(|started| is_accepted(started)).count() >= 10);
}

#[test]
fn what_libpq_takes_in_a_service_file_and_we_do_not() {
    let folder = Folder::new("stricter");
    let rows = [
        // Far from any honest file, and it has to end somewhere.
        ("[a]\nhost=x\n#\n".to_owned() + &"#\n".repeat(600_000), "at most 1048576 are allowed"),
        // Values are texts.
        ("[a]\nhost=x\nuser=\0\n".to_owned(), "is not UTF-8 text, or has a NUL"),
    ];
    for (text, says) in rows {
        let path = folder.file("x", &text);
        let variables = environment(&[("PGSERVICEFILE", &path)]);
        let start = (variables.clone(), "service=a target_session_attrs=-");
        let (answers, _) = libpq().start(&[start]);
        assert!(is_accepted(&answers[0]), "{}", answers[0].error);
        let error = conninfo::resolve("service=a", &variables).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // libpq asks the LDAP server, if it was built with LDAP, or else takes the line for nonsense.
    let path = folder.file("x", "[a]\nldap://127.0.0.1:1/x?y?base?(z=1)\n");
    let variables = environment(&[("PGSERVICEFILE", &path)]);
    let error = conninfo::resolve("service=a", &variables).unwrap_err().to_string();
    assert!(error.contains("refers to an LDAP server"), "{error}");
    // And the deprecated variable, which stands for an sslmode.
    let variables = environment(&[("PGREQUIRESSL", "1")]);
    let (answers, _) = libpq().start(&[(variables.clone(), "target_session_attrs=-")]);
    assert_eq!(answers[0].values["sslmode"], b"require");
    let error = conninfo::resolve("", &variables).unwrap_err().to_string();
    assert!(error.contains("PGREQUIRESSL is set"), "{error}");
}

#[test]
fn generated_password_files_give_the_password_that_libpq_finds() {
    let folder = Folder::new("passfile");
    let home = folder.0.display().to_string();
    let variables = environment(&[("HOME", &home)]);
    // With another default, which we do not know, a line for localhost counts elsewhere.
    let directory = match libpq().socket_directory.as_str() {
        ours @ "/var/run/postgresql" => ours,
        _ => "/run/elsewhere",
    };
    let mut dice = Dice::new(0x5eed_0003);
    let rows: Vec<_> = (0..4000)
        .map(|index| {
            let (text, login) = dice.passfile(directory);
            let path = folder.file(&format!("{index}"), &text);
            (text, format!("{login} passfile={path}"))
        })
        .collect();
    let texts: Vec<_> = rows.iter().map(|(_, it)| format!("{it} target_session_attrs=-")).collect();
    let starts: Vec<_> = texts.iter().map(|text| (variables.clone(), text.as_str())).collect();
    let (answers, warnings) = libpq().start(&starts);
    assert_eq!(warnings, "");
    let mut found = 0;
    for ((text, login), started) in rows.iter().zip(&answers) {
        assert!(is_accepted(started), "{login}: {}", started.error);
        // Whoever says no host means localhost by TCP here, and the default socket with libpq;
        // both look for the same line.
        let servers = conninfo::plan(login, &variables);
        let servers = servers.unwrap_or_else(|error| panic!("{login}: {error}\n{text}"));
        let password = servers[0].password.clone().unwrap_or_default();
        let theirs = String::from_utf8_lossy(&started.password);
        assert_eq!(password, theirs, "{login}\n{text}");
        found += usize::from(!theirs.is_empty());
    }
    println!("{} files, {found} with a password", rows.len());
    assert!(found > 300, "{found}");
}

#[test]
fn what_libpq_passes_over_in_a_password_file_and_we_refuse() {
    let folder = Folder::new("refused");
    let open = folder.file("open", "*:*:*:*:secret\n");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("its mode");
    let missing = folder.0.join("missing").display().to_string();
    let nul = folder.file("nul", "*:*:*:*:a\0b\n");
    let long = folder.file("long", &format!("{}\n*:*:*:*:x\n", "#".repeat(9000)));
    let rows = [
        (open.as_str(), "", "can be read or written by others"),
        ("/dev/null", "", "is not a regular file"),
        (&missing, "", "cannot be read"),
        (&nul, "", "has a NUL in it"),
        (&long, "x", "more than 8192 bytes"),
    ];
    for (path, theirs, says) in rows {
        let text = format!("host=a user=u passfile={path}");
        let start = format!("{text} target_session_attrs=-");
        let (answers, _) = libpq().start(&[(Vec::new(), &start)]);
        assert_eq!(String::from_utf8_lossy(&answers[0].password), theirs, "{path}");
        let error = conninfo::plan(&text, &[]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("secret") && !error.contains(path), "{error}");
    }
}
