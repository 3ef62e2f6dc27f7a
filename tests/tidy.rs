//! The rules of the house that a compiler does not check: which module may name which, how long a
//! file, a function and a line may be, and that every limit of the shape in `lib.rs` holds.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;
const SOURCE_FILES_MAX: usize = 108;

struct Source {
    path: String,
    text: String,
}

/// Every Rust file below a folder of the package.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let path = path.strip_prefix(root).expect("below the root");
                found.push(Source { path: path.display().to_string(), text });
            }
        }
    }
    assert!(!found.is_empty(), "no source in {folder}");
    found
}

/// The code of a file without its unit tests and comments.
fn code(source: &Source) -> String {
    let text = match source.text.find("#[cfg(test)]\nmod tests {") {
        Some(tests) => &source.text[..tests],
        None => &source.text,
    };
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Collects what breaks a rule, so that one run shows all of it.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn forbid(&mut self, source: &Source, words: &[&str]) {
        for (number, line) in code(source).lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                self.0.push(format!("{}, code line {}: {word}", source.path, number + 1));
            }
        }
    }

    fn finish(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[test]
fn the_protocol_knows_no_socket_thread_clock_or_other_module() {
    let mut findings = Findings::default();
    for source in sources("src/proto").iter().filter(|source| !is_test(&source.path)) {
        findings.forbid(
            source,
            &[
                "std::net",
                "std::io",
                "std::thread",
                "std::sync",
                "std::time",
                "mio::",
                "rustix::",
                "getrandom",
                "crate::config",
                "crate::context",
                "crate::error",
                "crate::guard",
                "crate::key",
                "crate::slots",
                "crate::clock",
                "crate::manager",
                "crate::lock",
            ],
        );
    }
    findings.finish();
}

#[test]
fn the_pure_core_reads_no_clock_and_touches_no_socket() {
    let pure = ["core.rs", "lease.rs", "jitter.rs", "convert.rs", "ledger/"];
    let mut findings = Findings::default();
    for source in sources("src/guard").iter().filter(|source| {
        !is_test(&source.path)
            && pure.iter().any(|name| source.path.contains(&format!("guard/{name}")))
    }) {
        findings.forbid(
            source,
            &["Time::now", "Instant", "std::net", "std::thread", "mio::", "rustix::", "getrandom"],
        );
    }
    findings.finish();
}

#[test]
fn only_the_guards_shell_names_the_event_loop() {
    let shell = ["mod.rs", "socket.rs", "stream.rs", "connect.rs", "turn.rs", "witness.rs"];
    let mut findings = Findings::default();
    for source in sources("src").iter() {
        if !shell.iter().any(|name| source.path == format!("src/guard/{name}")) {
            findings.forbid(source, &["mio::"]);
        }
    }
    findings.finish();
}

#[test]
fn the_public_face_does_not_know_the_protocol_or_the_guard() {
    let mut findings = Findings::default();
    let face = [
        "lock",
        "lock_set",
        "acquire",
        "acquire_all",
        "batch",
        "election",
        "holders",
        "key",
        "error",
    ];
    for name in face.into_iter().chain(["context", "slots", "timer", "slab", "clock"]) {
        let source = sources("src").into_iter().find(|s| s.path == format!("src/{name}.rs"));
        let source = source.expect("the file is where the rule looks for it");
        findings.forbid(&source, &["crate::proto", "crate::guard"]);
    }
    for source in sources("src/key").iter() {
        findings.forbid(source, &["crate::proto", "crate::guard"]);
    }
    for source in sources("src/config").iter() {
        findings.forbid(source, &["crate::proto", "crate::guard", "crate::slots"]);
    }
    for source in sources("src").iter().filter(|source| source.path == "src/manager.rs") {
        findings.forbid(source, &["crate::proto", "guard::core", "guard::ledger"]);
    }
    findings.finish();
}

#[test]
fn the_wall_clock_is_used_nowhere() {
    let mut findings = Findings::default();
    for source in sources("src").iter() {
        findings.forbid(source, &["SystemTime", "ClockId::Realtime", "UNIX_EPOCH"]);
    }
    findings.finish();
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    // Put together here, so that this file does not find itself.
    let words = [["#[ig", "nore"], ["todo", "!("], ["unimplemented", "!("], ["dbg", "!("]];
    let words = words.map(|parts| parts.concat());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut findings = Findings::default();
    for folder in ["src", "tests", "benches", "examples"] {
        for source in &sources(folder) {
            findings.forbid(source, &words);
        }
    }
    findings.finish();
}

#[test]
fn files_functions_and_lines_stay_short() {
    let mut findings = Findings::default();
    for folder in ["src", "tests", "benches", "examples"] {
        for source in sources(folder) {
            let lines: Vec<&str> = source.text.lines().collect();
            if lines.len() > FILE_LINES_MAX {
                findings.0.push(format!("{}: {} lines", source.path, lines.len()));
            }
            for (number, line) in lines.iter().enumerate() {
                if line.chars().count() > COLUMNS_MAX
                    && !line.contains("http")
                    && !line.contains("#[error(")
                {
                    findings.0.push(format!("{}:{}: a long line", source.path, number + 1));
                }
            }
            for (number, length) in functions(&lines) {
                if length > FUNCTION_LINES_MAX {
                    findings
                        .0
                        .push(format!("{}:{number}: a function of {length} lines", source.path));
                }
            }
        }
    }
    findings.finish();
}

/// What a user compiles with the library, itself included.
#[test]
fn the_dependency_tree_stays_under_forty_crates() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal,build", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo prints text");
    let crates: std::collections::BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    println!("{} crates", crates.len());
    assert!(crates.contains("distlock") && crates.len() < 40, "{crates:?}");
}

#[test]
fn the_library_stays_small() {
    let files = sources("src").iter().filter(|source| !is_test(&source.path)).count();
    assert!(files <= SOURCE_FILES_MAX, "{files} files");
}

/// The first line and the length of each function, by the indentation that rustfmt gives: the end
/// is the first line that closes at the indentation of the beginning.
fn functions(lines: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let is_function = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "pub async fn "]
            .iter()
            .any(|head| body.starts_with(head));
        // A declaration in a trait has no body.
        let signature = lines[start..].iter().find(|line| line.ends_with(['{', ';', '}']));
        if !is_function || signature.is_none_or(|line| !line.ends_with('{')) {
            continue;
        }
        let end = format!("{}}}", " ".repeat(line.len() - body.len()));
        if let Some(length) = lines[start..].iter().position(|line| *line == end) {
            found.push((start + 1, length + 1));
        }
    }
    found
}
