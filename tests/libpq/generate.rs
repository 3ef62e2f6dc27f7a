//! Connection strings, service files and password files by chance, the same ones each time.

/// Chance, from a seed (xorshift64*).
#[derive(Debug)]
pub(crate) struct Dice(u64);

const NAMES: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "dbname",
    "service",
    "application_name",
    "fallback_application_name",
    "options",
    "connect_timeout",
    "target_session_attrs",
    "client_encoding",
    "keepalives",
    "keepalives_idle",
    "tcp_user_timeout",
    "channel_binding",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslsni",
    "sslcrl",
    "sslpassword",
    "gssencmode",
    "krbsrvname",
    "replication",
    "requirepeer",
];

/// What is not a name of a parameter, or not of each libpq.
const OTHER_NAMES: &[&str] = &[
    "",
    "HOST",
    "hots",
    "host ",
    "requiressl",
    "ssl",
    "require_auth",
    "load_balance_hosts",
    "sslnegotiation",
    "min_protocol_version",
    "scram_client_key",
    "h\u{f6}st",
    "=",
    "'host'",
];

const VALUES: &[&str] = &[
    "",
    "a",
    "a,b",
    ",",
    "localhost",
    "/run/postgresql",
    "::1",
    "10.0.0.1",
    "5432",
    "5432,5433",
    "app",
    "s3cret",
    "a b",
    "a'b",
    "a\\b",
    "a=b",
    "gr\u{fc}n",
    "\u{1f511}",
    "disable",
    "require",
    "any",
    "x\ty",
    "%20",
    "#x",
    "'",
    "\\",
    "true",
    "@",
    "/",
    "?",
    "&",
    "-c a=b",
    "*",
    "!none",
];

/// Pieces that matter to one grammar or the other.
const SHARDS: &[&str] = &[
    " ",
    "'",
    "\\",
    "=",
    "\t",
    "\n",
    "\r",
    "\u{b}",
    "%",
    "%4",
    "%zz",
    "%00",
    "%41",
    "%c3%bc",
    "%ff",
    "@",
    ":",
    "/",
    "?",
    "&",
    ",",
    "[",
    "]",
    "#",
    "+",
    "x",
    "\u{fc}",
    "\u{a0}",
    "host",
    "ssl=true",
    "postgres://",
    "postgresql://",
    "''",
    "=''",
];

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// A connection string: right, nearly right, or damaged.
    pub(crate) fn string(&mut self) -> String {
        let mut text = if self.once_in(2) { self.pairs() } else { self.url() };
        if self.once_in(3) {
            for _ in 0..=self.below(3) {
                self.damage(&mut text);
            }
        }
        text
    }

    fn name(&mut self) -> &'static str {
        if self.once_in(25) { self.pick(OTHER_NAMES) } else { self.pick(NAMES) }
    }

    fn pairs(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(5) {
            text.push_str(self.pick(&["", "", " ", "\t", " \r\n"]));
            text.push_str(self.name());
            text.push_str(self.pick(&["=", "=", "=", " = ", "\n=", "= ", ""]));
            let value = self.pick(VALUES);
            match self.below(4) {
                0 => text.push_str(value),
                1 => text.push_str(&format!("'{value}'")),
                2 => {
                    let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
                    text.push_str(&format!("'{escaped}'"));
                }
                _ => {
                    for c in value.chars() {
                        if matches!(c, ' ' | '\t' | '\'' | '\\') {
                            text.push('\\');
                        }
                        text.push(c);
                    }
                }
            }
            text.push_str(self.pick(&[" ", " ", " ", "  ", "\n", ""]));
        }
        text
    }

    fn url(&mut self) -> String {
        let mut text = self.pick(&["postgres://", "postgresql://"]).to_owned();
        if self.once_in(2) {
            let (user, password) = (self.pick(VALUES), self.pick(VALUES));
            text.push_str(&self.encode(user));
            if !self.once_in(3) {
                text.push(':');
                text.push_str(&self.encode(password));
            }
            text.push('@');
        }
        for index in 0..self.below(4) {
            if index > 0 {
                text.push(',');
            }
            text.push_str(self.pick(&[
                "",
                "db",
                "db.internal",
                "[::1]",
                "[2001:db8::5]",
                "%2Frun%2Fx",
                "10.0.0.1",
                "[",
                "[]",
                "[::1]x",
                "a%2Cb",
                "[a/b?c]",
            ]));
            text.push_str(self.pick(&["", "", ":5432", ":", ":1", ":x", ":%31"]));
        }
        if !self.once_in(3) {
            text.push_str(self.pick(&["/", "/prod", "/a%2Fb", "/a/b", "//", "/a b", "/%"]));
        }
        for index in 0..self.below(4) {
            text.push(if index == 0 { '?' } else { '&' });
            text.push_str(self.name());
            text.push('=');
            let value = self.pick(VALUES);
            text.push_str(&self.encode(value));
        }
        text.push_str(self.pick(&["", "", "", "", "&", "?"]));
        text
    }

    /// With percent-encoding where it is needed, and here and there where it is not; now and then
    /// without.
    fn encode(&mut self, text: &str) -> String {
        if self.once_in(12) {
            return text.to_owned();
        }
        let mut encoded = String::new();
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() && !self.once_in(9) {
                encoded.push(char::from(byte));
            } else if self.once_in(2) {
                encoded.push_str(&format!("%{byte:02x}"));
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        }
        encoded
    }

    /// Takes a character out, or puts a piece in.
    fn damage(&mut self, text: &mut String) {
        let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
        if places.is_empty() || self.once_in(2) {
            let place = places.get(self.below(places.len() + 1)).copied().unwrap_or(text.len());
            text.insert_str(place, self.pick(SHARDS));
        } else {
            text.remove(places[self.below(places.len())]);
        }
    }

    /// A password file, and the parameters of a login that it may have a line for.
    pub(crate) fn passfile(&mut self, default_directory: &str) -> (String, String) {
        let hosts = ["a", "b", "localhost", "10.0.0.1", "::1", "/run/x", default_directory, "a:b"];
        let (ports, names) = (["5432", "1"], ["u", "d", "a:b", "a\\b", "*"]);
        let mut text = String::new();
        for _ in 0..self.below(6) {
            text.push_str(self.pick(&["", "", "", "", "", "", "#", " "]));
            for pool in [&hosts[..], &ports, &names, &names] {
                let field = if self.once_in(2) { "*" } else { self.pick(pool) };
                let field = match self.below(8) {
                    0 => field.to_owned(),
                    1 => field.chars().flat_map(|c| ['\\', c]).collect(),
                    _ => field.replace('\\', "\\\\").replace(':', "\\:"),
                };
                text.push_str(&field);
                text.push_str(match self.below(40) {
                    0 => "",
                    1 => "\\:",
                    _ => ":",
                });
            }
            text.push_str(
                self.pick(&["pw", "p\\:w", "p:w", "p\\\\w", "p\\w", "", "p w ", "\\", "*"]),
            );
            text.push_str(self.pick(&["\n", "\n", "\n", "\n", "\r\n", "\r\r\n", "\n\n", ""]));
        }
        let quote = |text: &str| text.replace('\\', "\\\\");
        let host = match self.below(6) {
            0 => String::new(),
            1 => "hostaddr=10.0.0.1".to_owned(),
            2 => "hostaddr=::1 host=a".to_owned(),
            // A host name has no colon.
            _ => format!("host='{}'", self.pick(&hosts[..7])),
        };
        let (port, dbname, user) = (self.pick(&ports), self.pick(&names), self.pick(&names));
        let login = format!("{host} port={port} dbname='{}' user='{}'", quote(dbname), quote(user));
        (text, login)
    }

    /// A service file, with groups `a` and `b`.
    pub(crate) fn service_file(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(12) {
            text.push_str(self.pick(&["", "", "", " ", "\t"]));
            match self.below(8) {
                0 | 1 => {
                    text.push_str(self.pick(&["[a]", "[b]", "[a] x", "[ab]", "[a", "[]", "[ a ]"]))
                }
                2 => text.push_str(self.pick(&["# x", "#", "", "\u{fc}", "x"])),
                _ => {
                    text.push_str(if self.once_in(20) {
                        self.name()
                    } else {
                        self.pick(&NAMES[..7])
                    });
                    text.push_str(self.pick(&["=", "=", "=", "=", "=", "= ", "==", " ="]));
                    text.push_str(self.pick(VALUES));
                }
            }
            text.push_str(self.pick(&["\n", "\n", "\n", " \n", "\r\n", "\n\n"]));
        }
        text
    }
}
