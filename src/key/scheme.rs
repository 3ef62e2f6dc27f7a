//! How other programs turn names into the numbers of advisory locks, so that a fleet can share
//! locks with them.
//!
//! A key excludes exactly those who lock the same number, in the same key space, of the same
//! database. Each function makes the number that its project makes of the same name; the tests have
//! values of each, and compare those that a server can compute with a server. Nothing is asked of a
//! server here, and no lock is taken.
//!
//! ```
//! use distlock::{Key, key::scheme};
//!
//! // A Rails application holds this one with with_advisory_lock("job").
//! assert_eq!(scheme::with_advisory_lock("job", 0), Key::Pair(2077810936, 0));
//! // `migrate` of golang-migrate holds this one in the database "shop".
//! let migrating = scheme::golang_migrate("shop", &["public", "schema_migrations"]);
//! # let _ = migrating;
//! ```
//!
//! # The schemes
//!
//! | function or constant | who locks it | key space | bits |
//! |---|---|---|---|
//! | [`fnv1a_64`] | ldelossa/distlock (Go), and this crate by default | bigint | 64 |
//! | [`sqlx`], [`sqlx_migrate`] | sqlx (Rust) | bigint | 64, 32 |
//! | [`madelson`] | madelson/DistributedLock (C#) | pair or bigint | 64 |
//! | [`distributed_lock_rs`] | distributed-lock-rs (Rust) | bigint or pair | 64 |
//! | [`hashtext`], [`hashtextextended`] | much SQL written by hand | bigint | **32**, 64 |
//! | [`with_advisory_lock`] | with_advisory_lock (Ruby) | pair | **31** |
//! | [`good_job`] | GoodJob (Ruby) | bigint | 64 |
//! | [`django_pglock`] | django-pglock (Python) | bigint | 64 |
//! | [`django_pglocks`], [`django_pglocks_2`] | django-pglocks (Python) | bigint | **32**, 64 |
//! | [`sqlalchemy_dlock`] | sqlalchemy-dlock (Python) | bigint | 64 |
//! | [`symfony`] | Symfony Lock (PHP) | bigint | **32** |
//! | [`river`] | River (Go) | bigint | 64 or **32** |
//! | [`advisory_lock_npm`] | binded/advisory-lock (Node.js) | pair | **40** |
//! | [`atlas`], [`flyway`], [`golang_migrate`] | migrations | bigint | 32 |
//! | [`rails_migrations`] | the migrations of Rails (Ruby) | bigint | 32 |
//! | [`GOOSE`], [`NODE_PG_MIGRATE`], [`PRISMA_MIGRATE`], [`TERN`] | migrations | bigint | - |
//!
//! # Collisions
//!
//! Two names with one number exclude each other. That two of n names have one is about as likely as
//! not when n is
//!
//! | bits | n |
//! |---|---|
//! | 31 | 54,600 |
//! | 32 | 77,200 |
//! | 40 | 1,230,000 |
//! | 64 | 5,060,000,000 |
//!
//! With a hundredth of these names it still happens in one fleet of 14,000. Take a scheme of 31 or
//! 32 bits to share locks with a program that has it, not for names of one's own. The numbers of
//! the 32-bit schemes are also small, where numbers picked by hand are, and those of one scheme are
//! among those of another.
//!
//! # What else there is
//!
//! A number that only the server can compute is asked for there, and used as it is:
//! [`Key::Bigint`], [`Key::Pair`]. This holds for `hashtext` of a big-endian server, of a database
//! in another encoding than UTF-8, and under a nondeterministic collation.
//!
//! ```sql
//! SELECT hashtextextended('invoice:42', 0);   -- bigint
//! SELECT hashtext('invoice:42')::bigint;      -- 32 bits of it
//! ```
//!
//! Ecto locks a hash of Erlang terms (`:erlang.phash2`), which is not made here. Django itself,
//! ShedLock and cirello-io/pglock use no advisory locks.

use std::fmt;

use blake2::Blake2b;
use blake2::digest::consts::U8;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::Key;
use super::hash;

/// ldelossa/distlock (Go), and [`Key::from`] of a name: FNV-1a 64, as a bigint.
///
/// The original sends the eight bytes of the hash, the highest first, as a binary `bigint`, which
/// makes the two's complement of them (`guard.go`, `keyify`).
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::fnv1a_64("job"), Key::from("job"));
/// ```
pub const fn fnv1a_64(name: &str) -> Key {
    Key::from_name(name)
}

/// `PgAdvisoryLock::new` of sqlx (Rust): HKDF-SHA256, as a bigint.
///
/// Eight bytes of HKDF (RFC 5869) without a salt, with the name as the key material and
/// `SQLx (Rust) Postgres advisory lock` as the info, the lowest byte first
/// (`sqlx-postgres/src/advisory_lock.rs`).
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::sqlx("job"), Key::Bigint(-8075846316381025412));
/// ```
pub fn sqlx(name: &str) -> Key {
    // No salt is a salt of zeros, and a block of zeros as an HMAC key is the same (RFC 2104).
    let mut mac = Hmac::<Sha256>::new(&[0; 64].into());
    mac.update(name.as_bytes());
    let extracted = mac.finalize().into_bytes();

    let mut key = [0; 64];
    for (to, from) in key.iter_mut().zip(extracted) {
        *to = from;
    }
    let mut mac = Hmac::<Sha256>::new(&key.into());
    mac.update(b"SQLx (Rust) Postgres advisory lock\x01");
    Key::Bigint(i64::from_le_bytes(first_8(&mac.finalize().into_bytes())))
}

/// The migrations of sqlx (Rust) in a database: `0x3d32ad9e` times the CRC-32 of the database's
/// name, as a bigint (`sqlx-postgres/src/migrate.rs`, `generate_lock_id`).
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::sqlx_migrate("postgres"), Key::Bigint(368907709894077238));
/// ```
pub fn sqlx_migrate(database: &str) -> Key {
    // Below 2^62: it cannot overflow.
    Key::Bigint(0x3d32_ad9e * i64::from(hash::crc32(&[database.as_bytes()])))
}

/// madelson/DistributedLock (C#, `DistributedLock.Postgres`), with its hashing allowed, which is
/// what its providers do. The first that fits (`PostgresAdvisoryLockKey.cs`):
///
/// * Up to nine ASCII characters, none at all too: seven bits for each, a 0, and 1s up to 64 bits;
///   the **pair** of the upper and the lower half. No two such names have one key.
/// * Eight hexadecimal digits, a comma, eight more: the **pair** of these numbers.
/// * 16 hexadecimal digits: this number, as a bigint.
/// * Anything else: the first eight bytes of SHA-1, the lowest first, as a bigint.
///
/// A hexadecimal number that is filled up with NUL characters, which .NET may read as well, is
/// hashed here.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::madelson("job"), Key::Pair(-708897793, -1));
/// assert_eq!(scheme::madelson("0000002a,ffffffff"), Key::Pair(42, -1));
/// assert_eq!(scheme::madelson("000000000000002A"), Key::Bigint(42));
/// assert_eq!(scheme::madelson("my-resource-name"), Key::Bigint(-7013951075416441247));
/// ```
pub fn madelson(name: &str) -> Key {
    if let Some(number) = ascii(name) {
        return Key::Pair((number >> 32) as i32, number as i32);
    }
    let hexadecimal = |digits: &str| {
        let valid = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        valid.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
    };
    if let (Some((high, low)), 17) = (name.split_once(','), name.len()) {
        if high.len() == 8 {
            if let (Some(high), Some(low)) = (hexadecimal(high), hexadecimal(low)) {
                return Key::Pair(high as i32, low as i32);
            }
        }
    }
    match hexadecimal(name) {
        Some(number) if name.len() == 16 => Key::Bigint(number as i64),
        _ => sha1(name),
    }
}

/// distributed-lock-rs (Rust, `distributed-lock-postgres` 0.2), whose providers allow its hashing.
/// Made after [`madelson`], and different: with short names the two **do not exclude each other**.
/// The first that fits (`crates/distributed-lock-postgres/src/key.rs`):
///
/// * Up to nine ASCII characters: the number of [`madelson`], as a **bigint**.
/// * 16 characters that Rust reads as a hexadecimal `i64`: this number, as a bigint. From
///   `8000000000000000` on it does not read them; a sign it does.
/// * Two such numbers that fit an `i32`, of any length, around the only comma: the **pair**.
/// * Anything else: as in [`madelson`].
///
/// # Errors
///
/// [`InvalidName`] where the name is empty.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::distributed_lock_rs("job")?, Key::Bigint(-3044692832846610433));
/// assert!(scheme::distributed_lock_rs("").is_err());
/// # Ok::<(), scheme::InvalidName>(())
/// ```
pub fn distributed_lock_rs(name: &str) -> Result<Key, InvalidName> {
    if name.is_empty() {
        return Err(InvalidName(()));
    }
    if let Some(number) = ascii(name) {
        return Ok(Key::Bigint(number));
    }
    if let (16, Ok(number)) = (name.len(), i64::from_str_radix(name, 16)) {
        return Ok(Key::Bigint(number));
    }
    // A second comma would be no digit.
    let pair = name.split_once(',').and_then(|(high, low)| {
        Some((i32::from_str_radix(high, 16).ok()?, i32::from_str_radix(low, 16).ok()?))
    });
    Ok(pair.map_or_else(|| sha1(name), Key::from))
}

/// The function `hashtext` of a PostgreSQL server, whose 32 bits become a bigint: much SQL written
/// by hand, `pg_advisory_lock(hashtext('invoice:42'))`, and packages of Laravel (mpyw, in
/// `PostgresSessionLocker.php`) and Rails (didww).
///
/// This is Bob Jenkins' lookup3 over the bytes of the text (`src/common/hashfn.c`). The manual does
/// not have it, and nobody promises its values for longer than a major version; but they go into
/// hash indexes and partitions on disk. They are these on little-endian machines, in UTF-8
/// databases, under deterministic collations. The tests compare with PostgreSQL 15; for any other,
/// `SELECT hashtext('job')` should be -168112706.
///
/// Only 32 bits: about 77,200 names collide as likely as not. A text on the server has no NUL
/// characters; a name with one has a number here that no server gives.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::hashtext("job"), Key::Bigint(-168112706));
/// ```
pub fn hashtext(name: &str) -> Key {
    Key::Bigint(i64::from(hash::postgres(name.as_bytes(), 0) as i32))
}

/// The function `hashtextextended` of a PostgreSQL server (11 and later), as a bigint:
/// `pg_advisory_lock(hashtextextended('invoice:42', 0))`.
///
/// The longer sister of [`hashtext`], with the same conditions. A seed of 0 is none.
/// IlyaSemenov/pg-advisory-lock (Node.js) has the hash of one name as the seed of the next
/// (`src/mutex.ts`).
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::hashtextextended("job", 0), Key::Bigint(2037922322055876030));
/// ```
pub fn hashtextextended(name: &str, seed: i64) -> Key {
    Key::Bigint(hash::postgres(name.as_bytes(), seed as u64) as i64)
}

/// with_advisory_lock (Ruby): a **pair** of the lower 31 bits of the CRC-32 of the name and of the
/// prefix (`lib/with_advisory_lock/postgresql_advisory.rb`, `lock_keys_for`).
///
/// The prefix is what Ruby's `to_i` makes of `WITH_ADVISORY_LOCK_PREFIX`: 0 where that is not set,
/// and 0 where it does not begin with a number. A lock whose name is a Ruby number `n` has the key
/// `Key::Pair(n & 0x7fff_ffff, prefix)`.
///
/// Only **31 bits**: about 54,600 names collide as likely as not.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::with_advisory_lock("job", 0), Key::Pair(2077810936, 0));
/// ```
pub fn with_advisory_lock(name: &str, prefix: i64) -> Key {
    let lower_31 = |number: i64| (number & 0x7fff_ffff) as i32;
    Key::Pair(lower_31(hash::crc32(&[name.as_bytes()]).into()), lower_31(prefix))
}

/// GoodJob (Ruby): the first eight bytes of MD5, the highest first, as a bigint
/// (`advisory_lockable.rb`). The name of a job's lock is the table's, a hyphen, and its UUID.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::good_job("job"), Key::Bigint(-7071260758707571268));
/// ```
pub fn good_job(name: &str) -> Key {
    Key::Bigint(i64::from_be_bytes(first_8(&Md5::digest(name))))
}

/// django-pglock (Python, by Opus10): the first eight bytes of SHA-256, the lowest first, as a
/// bigint (`pglock/core.py`, `_cast_lock_id`).
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::django_pglock("job"), Key::Bigint(-1442706452717663138));
/// ```
pub fn django_pglock(name: &str) -> Key {
    Key::Bigint(i64::from_le_bytes(first_8(&Sha256::digest(name))))
}

/// django-pglocks (Python, by Xof) before version 2: the CRC-32, as a signed number of 32 bits, as
/// a bigint (`django_pglocks/__init__.py`).
///
/// Only 32 bits: about 77,200 names collide as likely as not. Half of the names have the key that
/// [`symfony`] gives them, the others that less 2^32.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::django_pglocks("job"), Key::Bigint(-69672712));
/// ```
pub fn django_pglocks(name: &str) -> Key {
    Key::Bigint(i64::from(hash::crc32(&[name.as_bytes()]) as i32))
}

/// django-pglocks (Python, by Xof) of version 2: the first eight bytes of SHA-256, the highest
/// first, as a bigint (`src/django_pglocks/_lock.py`, `resolve_lock_id`).
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::django_pglocks_2("job"), Key::Bigint(6812988570718632683));
/// ```
pub fn django_pglocks_2(name: &str) -> Key {
    Key::Bigint(i64::from_be_bytes(first_8(&Sha256::digest(name))))
}

/// sqlalchemy-dlock (Python): BLAKE2b of eight bytes, in the byte order of the machine that its
/// program runs on, as a bigint (`sqlalchemy_dlock/utils.py`, `to_int64_key`). This is the number
/// of a little-endian machine, which nearly all are.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::sqlalchemy_dlock("job"), Key::Bigint(2652386491717082798));
/// ```
pub fn sqlalchemy_dlock(name: &str) -> Key {
    Key::Bigint(i64::from_le_bytes(first_8(&Blake2b::<U8>::digest(name))))
}

/// Symfony Lock (PHP): the CRC-32, without a sign, as a bigint (`Store/PostgreSqlStore.php`,
/// `getHashedKey`).
///
/// Only 32 bits: about 77,200 names collide as likely as not.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::symfony("job"), Key::Bigint(4225294584));
/// ```
pub fn symfony(name: &str) -> Key {
    Key::Bigint(i64::from(hash::crc32(&[name.as_bytes()])))
}

/// River (Go), with its `AdvisoryLockPrefix`: FNV-1 64 where that is 0; else the prefix in the
/// upper half and FNV-1 32 in the lower one; as a bigint
/// (`rivershared/util/hashutil/hash_util.go`).
///
/// With a prefix only 32 bits: about 77,200 names collide as likely as not.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::river("job", 0), Key::Bigint(-2828639792616016702));
/// assert_eq!(scheme::river("job", 1), Key::Bigint((1 << 32) + 545665442));
/// ```
pub fn river(name: &str, prefix: i32) -> Key {
    Key::Bigint(match prefix {
        0 => hash::fnv1_64(name.as_bytes()) as i64,
        prefix => (i64::from(prefix) << 32) | i64::from(hash::fnv1_32(name.as_bytes())),
    })
}

/// binded/advisory-lock (Node.js): a **pair** of little-endian numbers out of SHA-256, one from the
/// first byte on and one from the second (`src/index.js`, `strToKey`).
///
/// They share three bytes, so there are only 40 bits: about 1.2 million names collide as likely as
/// not.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::advisory_lock_npm("job"), Key::Pair(43617374, 537041292));
/// ```
pub fn advisory_lock_npm(name: &str) -> Key {
    let first = u64::from_le_bytes(first_8(&Sha256::digest(name)));
    Key::Pair(first as i32, (first >> 8) as i32)
}

/// The migrations of Atlas (Go): FNV-1 32 of the lock's name, without a sign, as a bigint
/// (`sql/postgres/driver.go`, `Lock`). The name is `atlas_migrate_execute` where none was given.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::atlas("job"), Key::Bigint(545665442));
/// ```
pub fn atlas(name: &str) -> Key {
    Key::Bigint(i64::from(hash::fnv1_32(name.as_bytes())))
}

/// The migrations of golang-migrate (Go) in a database: the CRC-32 of the names and the database,
/// with NUL characters between them, times 1486364155, of which the lower 32 bits are a bigint
/// (`database/util.go`, `GenerateAdvisoryLockId`).
///
/// The names are the schema and the table of its versions; drivers of old give only the schema, or
/// none.
///
/// ```
/// use distlock::{Key, key::scheme};
/// let key = scheme::golang_migrate("postgres", &["public", "schema_migrations"]);
/// assert_eq!(key, Key::Bigint(143310882));
/// ```
pub fn golang_migrate(database: &str, names: &[&str]) -> Key {
    let mut parts = Vec::with_capacity(2 * names.len() + 1);
    for name in names {
        parts.extend([name.as_bytes(), b"\0"]);
    }
    parts.push(database.as_bytes());
    Key::Bigint(i64::from(hash::crc32(&parts).wrapping_mul(1_486_364_155)))
}

/// The migrations of Flyway (Java): the bytes of `Flyway` as a number, plus Java's hash of the
/// table of its history, as a bigint (`PostgreSQLAdvisoryLockTemplate.java`;
/// `PostgreSQLConnection.java`, `lock`).
///
/// The table is written as `"schema"."table"`, in double quotes, those inside doubled
/// (`SchemaObject.java`; `PostgreSQLDatabase.java`, `doQuote`). This was read in its sources and
/// not seen in a database: look into `pg_locks` before relying on it. Whether Flyway takes the lock
/// for a transaction or for a session (`postgresql.transactional.lock`), the key is the same.
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::flyway("public", "flyway_schema_history"), Key::Bigint(77433833903597));
/// ```
pub fn flyway(schema: &str, table: &str) -> Key {
    let quoted = [schema, table].map(|name| name.replace('"', "\"\""));
    let table = hash::java(&format!("\"{}\".\"{}\"", quoted[0], quoted[1]));
    Key::Bigint(0x466c_7977_6179 + i64::from(table))
}

/// The migrations of Rails in a database: 2053462845 times the CRC-32 of the database's name, as a
/// bigint (`activerecord/lib/active_record/migration.rb`).
///
/// ```
/// use distlock::{Key, key::scheme};
/// assert_eq!(scheme::rails_migrations("postgres"), Key::Bigint(737815420147457505));
/// ```
pub fn rails_migrations(database: &str) -> Key {
    // Below 2^63: it cannot overflow.
    Key::Bigint(2_053_462_845 * i64::from(hash::crc32(&[database.as_bytes()])))
}

/// The migrations of goose (Go) where its session locker is used and not told otherwise
/// (`lock/session_locker_options.go`, `DefaultLockID`): the CRC-32 of `goose`, as a bigint.
pub const GOOSE: Key = Key::Bigint(4_097_083_626);

/// The migrations of node-pg-migrate, as a bigint (`src/runner.ts`).
pub const NODE_PG_MIGRATE: Key = Key::Bigint(7_241_865_325_823_964);

/// Prisma Migrate, as a bigint. Read in its error messages (prisma/orm, issue 8038), not in its
/// source.
pub const PRISMA_MIGRATE: Key = Key::Bigint(72_707_369);

/// The migrations of tern (Go), as a bigint (`migrate/migrate.go`).
pub const TERN: Key = Key::Bigint(9_628_173_550_095_224);

/// A name that a scheme has no key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName(());

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the name is empty, which distributed-lock-rs refuses; give at least one character",
        )
    }
}

impl std::error::Error for InvalidName {}

/// Up to nine characters of seven bits, a 0, and 1s up to 64 bits.
fn ascii(name: &str) -> Option<i64> {
    let bytes = name.as_bytes();
    if !name.is_ascii() || bytes.len() > 9 {
        return None;
    }
    let characters = bytes.iter().fold(0, |bits, &byte| (bits << 7) | i64::from(byte)) << 1;
    let missing = 7 * (9 - bytes.len());
    // With nine missing, the one bit is the sign, and one less are all the others.
    Some((characters << missing) | ((1_i64 << missing).wrapping_sub(1)))
}

/// The first eight bytes of SHA-1, the lowest first, as a bigint.
fn sha1(name: &str) -> Key {
    Key::Bigint(i64::from_le_bytes(first_8(&Sha1::digest(name))))
}

/// The first eight bytes of a hash, all of which are at least as long.
fn first_8(hash: &[u8]) -> [u8; 8] {
    std::array::from_fn(|index| hash[index])
}

#[cfg(test)]
mod tests;
