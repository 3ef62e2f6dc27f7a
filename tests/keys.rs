//! The keys of names against a real server: that the schemes which a server can compute give what
//! it computes, that a key excludes the programs it is meant to, and that what a key prints finds
//! the lock in `pg_locks`.

mod support;

use std::collections::HashSet;

use distlock::key::{Named, scheme};
use distlock::{Context, Key, Manager};
use support::{Sql, shared_cluster};

/// How many names are compared in one statement.
const BATCH: usize = 250;

/// xorshift64*: the same names in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A character of one to four bytes, printable or not, but no NUL: no text on a server has one.
    fn character(&mut self) -> char {
        let limit = [0x7f, 0x80, 0x800, 0x1_0000, 0x11_0000][self.below(5) as usize];
        // What is no character is half of a surrogate pair.
        char::from_u32(1 + self.below(limit - 1) as u32).unwrap_or('\u{fffd}')
    }

    fn name(&mut self, characters: u64) -> String {
        (0..characters).map(|_| self.character()).collect()
    }
}

/// The empty name, ASCII of every length up to 64 bytes, what SQL has to quote, generated names
/// of up to 40 characters, and some long ones.
fn names() -> Vec<String> {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut names: Vec<String> =
        ["", "'", "''", "\\", "\\'", "$1", "\"", "job", "invoice:42"].map(String::from).into();
    names.extend((1..=64).map(|length| "abcdefghijklm".repeat(5)[..length].to_owned()));
    for _ in 0..4000 {
        let length = random.below(41);
        names.push(random.name(length));
    }
    for length in [100, 255, 256, 1000, 1023, 4096, 20_000] {
        names.push(random.name(length));
    }
    names
}

/// What the expression over `n` is for each name on the server.
fn computed(sql: &mut Sql, expression: &str, names: &[String]) -> Vec<i64> {
    let mut all = Vec::new();
    for batch in names.chunks(BATCH) {
        let literals: Vec<String> =
            batch.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
        let rows = sql.query(&format!(
            "SELECT ({expression})::bigint FROM unnest(ARRAY[{}]::text[]) \
             WITH ORDINALITY AS t (n, place) ORDER BY place",
            literals.join(",")
        ));
        assert_eq!(rows.len(), batch.len());
        let number = |row: &support::Row| row[0].as_deref()?.parse::<i64>().ok();
        all.extend(rows.iter().map(|row| number(row).expect("a bigint")));
    }
    all
}

/// Compares a scheme with the server's expression, name by name.
#[track_caller]
fn compare(expression: &str, scheme: impl Fn(&str) -> Key) {
    let names = names();
    let mut sql = shared_cluster().sql();
    let theirs = computed(&mut sql, expression, &names);
    for (name, number) in names.iter().zip(theirs) {
        assert_eq!(scheme(name), Key::Bigint(number), "{expression} of {name:?}");
    }
}

fn manager() -> Manager {
    Manager::connect(shared_cluster().url()).expect("connects")
}

#[test]
fn the_generated_names_are_thousands_and_of_every_length_of_the_last_block() {
    let names: HashSet<String> = names().into_iter().collect();
    assert!(names.len() > 3900, "{}", names.len());
    let lengths: HashSet<usize> = names.iter().map(|name| name.len() % 12).collect();
    assert_eq!(lengths.len(), 12);
    assert!(names.iter().any(|name| name.len() > 20_000) && names.contains(""));
}

#[test]
fn hashtext_is_the_servers() {
    compare("hashtext(n)", scheme::hashtext);
}

#[test]
fn hashtextextended_is_the_servers_with_any_seed() {
    let mut random = Random(42);
    let generated: [i64; 4] = std::array::from_fn(|_| random.next() as i64);
    let chosen = [0, 1, -1, i64::MIN, i64::MAX, 1 << 32, 0xffff_ffff];
    for seed in chosen.into_iter().chain(generated) {
        // The literal of the smallest bigint is out of range before its sign is seen.
        let expression = format!("hashtextextended(n, '{seed}'::bigint)");
        compare(&expression, |name| scheme::hashtextextended(name, seed));
    }
}

#[test]
fn good_job_is_the_servers_md5() {
    compare("('x' || substr(md5(n), 1, 16))::bit(64)", scheme::good_job);
}

/// The function `sha256` is one of PostgreSQL 11 and later.
#[test]
fn the_schemes_on_sha_256_are_the_servers() {
    let hash = "substr(encode(sha256(convert_to(n, 'UTF8')), 'hex'), 1, 16)";
    compare(&format!("('x' || {hash})::bit(64)"), scheme::django_pglocks_2);
    let swapped = |key| match key {
        Key::Bigint(number) => Key::Bigint(number.swap_bytes()),
        pair => pair,
    };
    compare(&format!("('x' || {hash})::bit(64)"), |name| swapped(scheme::django_pglock(name)));
}

/// The hash of one name as the seed of the next one, as IlyaSemenov/pg-advisory-lock has it.
#[test]
fn a_hash_can_be_the_seed_of_the_next_one() {
    compare("hashtextextended(n, hashtextextended('shop', 0))", |name| {
        match scheme::hashtextextended("shop", 0) {
            Key::Bigint(seed) => scheme::hashtextextended(name, seed),
            pair => pair,
        }
    });
}

#[test]
fn the_database_name_is_that_of_current_database() {
    let database = shared_cluster().sql().value("SELECT current_database()").expect("a name");
    assert_eq!(database, "postgres", "the vector of the migrations is for this name");
    assert_eq!(scheme::sqlx_migrate(&database), Key::Bigint(368907709894077238));
}

/// What others say in SQL and what is locked here are one lock.
#[test]
fn a_key_of_a_scheme_excludes_those_who_lock_it_in_sql() {
    let (manager, ctx) = (manager(), Context::background());
    let mut sql = shared_cluster().sql();
    let expressions = [
        (scheme::hashtextextended("keys:a", 7), "hashtextextended('keys:a', 7)"),
        (scheme::hashtext("keys:b"), "hashtext('keys:b')::bigint"),
        (scheme::good_job("keys:c"), "('x' || substr(md5('keys:c'), 1, 16))::bit(64)::bigint"),
        (scheme::madelson("keys:d"), "-677916873, 1495269375"),
        (scheme::GOOSE, "4097083626"),
    ];
    for (key, arguments) in expressions {
        let held = manager.try_lock(&ctx, key).expect("answered").expect("free");
        let ask = format!("SELECT pg_try_advisory_lock({arguments})");
        assert_eq!(sql.value(&ask).as_deref(), Some("f"), "{key}: {arguments}");
        assert!(held.unlock().is_ok());
        assert_eq!(sql.value(&ask).as_deref(), Some("t"), "{key}: {arguments}");
        assert!(manager.try_lock(&ctx, key).expect("answered").is_none());
    }
}

#[test]
fn what_a_key_prints_finds_its_lock_in_pg_locks() {
    let (manager, ctx) = (manager(), Context::background());
    let mut sql = shared_cluster().sql();
    let keys = [
        Key::from("keys:printed"),
        scheme::sqlx("keys:printed"),
        Key::Bigint(-3),
        Key::Bigint(i64::MIN + 5),
        scheme::with_advisory_lock("keys:printed", -1),
        Key::Pair(-7, i32::MIN),
    ];
    for key in keys {
        let shown = format!("{key:#}");
        let condition = shown.strip_prefix(&key.to_string()).expect("the number comes first");
        let count = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND {condition} \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        assert_eq!(sql.value(&count).as_deref(), Some("0"), "{shown}");
        let held = manager.try_lock(&ctx, key).expect("answered").expect("free");
        assert_eq!(sql.value(&count).as_deref(), Some("1"), "{shown}");
        assert!(held.unlock().is_ok());
    }
}

#[test]
fn a_named_key_locks_what_its_name_locks() {
    let (manager, ctx) = (manager(), Context::background());
    let named = Named { name: "keys:named", key: Key::in_namespace("keys", "named") };
    let held = manager.try_lock(&ctx, named).expect("answered").expect("free");
    assert_eq!(held.key(), Key::from("4:keys:named"));
    assert!(manager.try_lock(&ctx, "4:keys:named").expect("answered").is_none());
    assert!(manager.try_lock(&ctx, "keys:named").expect("answered").is_some());
}
