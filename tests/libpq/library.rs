//! The real libpq, in a process of its own: `conninfo.c`, compiled once and asked many questions.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Names and values.
pub(crate) type Values = BTreeMap<String, Vec<u8>>;

/// A parameter that libpq has.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) variable: Option<String>,
    pub(crate) default: Option<String>,
}

/// The library that was found.
#[derive(Debug)]
pub(crate) struct Library {
    program: PathBuf,
    /// Such as 15 for 15.18.
    pub(crate) major: u32,
    pub(crate) parameters: BTreeMap<String, Parameter>,
    /// Where it looks for a socket when no host is given.
    pub(crate) socket_directory: String,
}

/// An environment and a connection string.
pub(crate) type Start<'a> = (Vec<(String, String)>, &'a str);

/// What came of starting to connect.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) error: String,
    pub(crate) password: Vec<u8>,
    pub(crate) host: String,
    pub(crate) values: Values,
}

/// libpq, as the linker finds it; `DISTLOCK_LIBPQ` names the file of another one.
pub(crate) fn libpq() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let program = compile();
        let mut library = Library {
            program,
            major: 0,
            parameters: BTreeMap::new(),
            socket_directory: String::new(),
        };
        // The second of two bad parameters keeps it from connecting; the first host is told.
        let (output, _) =
            library.run(&requests_to_start(&[(Vec::new(), "target_session_attrs=-")]));
        let mut reader = Reader(&output);
        library.major = reader.number() / 10_000;
        for _ in 0..reader.number() {
            let name = reader.string();
            let mut optional = || Some(reader.string()).filter(|text| !text.is_empty());
            let parameter = Parameter { variable: optional(), default: optional() };
            library.parameters.insert(name, parameter);
        }
        library.socket_directory = reader.started().host;
        println!("libpq {}, sockets in {}", library.major, library.socket_directory);
        library
    })
}

impl Library {
    /// What PQconninfoParse makes of each string.
    pub(crate) fn parse(&self, texts: &[String]) -> Vec<Result<Values, String>> {
        let mut requests = Vec::new();
        for text in texts {
            requests.push(b'p');
            put_text(&mut requests, text);
        }
        let (output, _) = self.run(&requests);
        let mut reader = self.reader(&output);
        let results = texts.iter().map(|_| match reader.byte() {
            b'o' => Ok(reader.values()),
            _ => Err(reader.string()),
        });
        let results = results.collect();
        assert!(reader.0.is_empty(), "{} bytes too many", reader.0.len());
        results
    }

    /// What PQconnectStart makes of each string in its environment, and all that was printed.
    pub(crate) fn start(&self, starts: &[Start<'_>]) -> (Vec<Started>, String) {
        let (output, warnings) = self.run(&requests_to_start(starts));
        let mut reader = self.reader(&output);
        let results = starts.iter().map(|_| reader.started()).collect();
        assert!(reader.0.is_empty(), "{} bytes too many", reader.0.len());
        (results, warnings)
    }

    fn reader<'a>(&self, output: &'a [u8]) -> Reader<'a> {
        let mut reader = Reader(output);
        reader.number();
        for _ in 0..3 * reader.number() {
            reader.text();
        }
        reader
    }

    fn run(&self, requests: &[u8]) -> (Vec<u8>, String) {
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("LC_ALL", "C")
            .spawn()
            .expect("the program starts");
        let mut input = child.stdin.take().expect("it was asked for");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(requests).expect("the program reads it all"));
            child.wait_with_output().expect("the program ends")
        });
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {errors}", output.status);
        (output.stdout, errors)
    }
}

fn requests_to_start(starts: &[Start<'_>]) -> Vec<u8> {
    let mut requests = Vec::new();
    for (environment, text) in starts {
        requests.push(b'c');
        put_number(&mut requests, environment.len());
        for (name, value) in environment {
            put_text(&mut requests, name);
            put_text(&mut requests, value);
        }
        put_text(&mut requests, text);
    }
    requests
}

fn compile() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libpq/conninfo.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conninfo");
    let mut command = Command::new("cc");
    command.args(["-O1", "-Wall", "-o"]).arg(&program).arg(source);
    match std::env::var_os("DISTLOCK_LIBPQ") {
        None => command.arg("-l:libpq.so.5"),
        Some(path) => {
            let directory = Path::new(&path).parent().expect("the file is in a folder");
            command.arg(&path).arg(format!("-Wl,-rpath,{}", directory.display()));
            // It may bring libraries of its own, which the linker does not find.
            command.arg("-Wl,--unresolved-symbols=ignore-in-shared-libs")
        }
    };
    let output = command.output().expect(
        "this test needs a C compiler, `cc`, and libpq (Debian: the packages gcc, libc6-dev and \
         libpq5)",
    );
    assert!(
        output.status.success(),
        "this test needs a C compiler, `cc`, and libpq (Debian: the packages gcc, libc6-dev and \
         libpq5); cc says:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

fn put_number(requests: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).expect("tests are small");
    requests.extend_from_slice(&number.to_le_bytes());
}

fn put_text(requests: &mut Vec<u8>, text: &str) {
    assert!(!text.contains('\0'), "C ends a text there");
    put_number(requests, text.len());
    requests.extend_from_slice(text.as_bytes());
}

/// The answers that are still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn number(&mut self) -> u32 {
        let bytes = self.take(4).try_into().expect("four bytes");
        u32::from_le_bytes(bytes)
    }

    fn text(&mut self) -> &'a [u8] {
        let length = self.number();
        self.take(length as usize)
    }

    fn string(&mut self) -> String {
        String::from_utf8_lossy(self.text()).into_owned()
    }

    fn values(&mut self) -> Values {
        (0..self.number()).map(|_| (self.string(), self.text().to_vec())).collect()
    }

    fn started(&mut self) -> Started {
        Started {
            error: self.string(),
            password: self.text().to_vec(),
            host: self.string(),
            values: self.values(),
        }
    }
}
