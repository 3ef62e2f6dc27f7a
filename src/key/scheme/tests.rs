//! The numbers that each scheme's own project makes, and what is particular about some of them.
//! Where a server can compute them, `tests/keys.rs` compares many more.

use super::*;
use crate::key::Key::{Bigint, Pair};

/// A name, or a database, and its key.
type Vector = (&'static str, Key);

#[track_caller]
fn check(scheme: impl Fn(&str) -> Key, vectors: &[Vector]) {
    for (name, key) in vectors {
        assert_eq!(scheme(name), *key, "{name:?}");
    }
}

/// Both names, in the order of the table in which they were collected.
#[track_caller]
fn check_both(scheme: impl Fn(&str) -> Key, job: Key, resource: Key) {
    check(scheme, &[("job", job), ("my-resource-name", resource)]);
}

#[test]
fn the_64_bit_schemes_give_the_numbers_of_their_projects() {
    check_both(fnv1a_64, Bigint(4999694984129765468), Bigint(8514355869883808142));
    check_both(sqlx, Bigint(-8075846316381025412), Bigint(7363929669458211429));
    check_both(django_pglock, Bigint(-1442706452717663138), Bigint(5565626718644293183));
    check_both(good_job, Bigint(-7071260758707571268), Bigint(7293018857811076176));
    check_both(sqlalchemy_dlock, Bigint(2652386491717082798), Bigint(6890147726298412022));
    check_both(|name| river(name, 0), Bigint(-2828639792616016702), Bigint(6319214277825345296));
    check_both(django_pglocks_2, Bigint(6812988570718632683), Bigint(4561644207757081933));
    check_both(
        |name| hashtextextended(name, 0),
        Bigint(2037922322055876030),
        Bigint(1287059409122239722),
    );
}

#[test]
fn the_narrow_schemes_give_the_numbers_of_their_projects() {
    let prefixless = |name: &str| with_advisory_lock(name, 0);
    check_both(prefixless, Pair(2077810936, 0), Pair(191195738, 0));
    check_both(advisory_lock_npm, Pair(43617374, 537041292), Pair(1027034687, 54343502));
    check_both(django_pglocks, Bigint(-69672712), Bigint(191195738));
    check_both(symfony, Bigint(4225294584), Bigint(191195738));
    check_both(hashtext, Bigint(-168112706), Bigint(-1517411094));
    check_both(atlas, Bigint(545665442), Bigint(1187553776));
}

/// The empty name, one beyond ASCII, and a long one, by the hash functions of Python's library.
#[test]
fn unusual_names_have_the_numbers_that_another_language_makes() {
    type Unusual = (fn(&str) -> Key, [i64; 3]);
    let long = "x".repeat(1000);
    let table: [Unusual; 14] = [
        (fnv1a_64, [-3750763034362895579, 1595476802170768249, -2184859513441168699]),
        (sqlx, [8559922135585776354, 1757572372342459369, 7820946800567525258]),
        (sha1, [957977401221134810, -1230319112955531022, 3376925640998973379]),
        (good_job, [-3162216497309240828, 8897019414298507476, 4144776019855927798]),
        (django_pglock, [1449310910991872227, -6449781631200196084, 268709184000096324]),
        (django_pglocks_2, [-2039914840885289964, 867639339092639142, 4969780757471279619]),
        (django_pglocks, [0, 1052957799, 994167270]),
        (sqlalchemy_dlock, [-5426141060434712860, 4515959100208382477, 1695065728218771610]),
        (symfony, [0, 1052957799, 994167270]),
        (|name| river(name, 0), [-3750763034362895579, 7842533462116784305, -1201118281315319675]),
        (|name| river(name, -1), [-2128831035, -2296956079, -893144795]),
        (atlas, [2166136261, 1998011217, 3401822501]),
        (sqlx_migrate, [0, 1081104858273260178, 1020742774832957940]),
        (rails_migrations, [0, 2162209717599478155, 2041485550660083150]),
    ];
    for (index, (scheme, keys)) in table.into_iter().enumerate() {
        for (name, key) in ["", "Größe 🔒", &long].into_iter().zip(keys) {
            assert_eq!(scheme(name), Bigint(key), "{name:?} of line {index}");
        }
    }
    check(
        advisory_lock_npm,
        &[("", Pair(1120186595, -1740454736)), ("Größe 🔒", Pair(1635322380, -949913334))],
    );
    check(
        |database| golang_migrate(database, &["public", "t"]),
        &[("", Bigint(371574203)), ("Größe 🔒", Bigint(2880076474))],
    );
}

#[test]
fn the_migrations_have_the_numbers_of_their_projects() {
    assert_eq!(sqlx_migrate("postgres"), Bigint(368907709894077238));
    assert_eq!(rails_migrations("postgres"), Bigint(737815420147457505));
    assert_eq!(flyway("public", "flyway_schema_history"), Bigint(77433833903597));
    assert_eq!(golang_migrate("postgres", &["public", "schema_migrations"]), Bigint(143310882));
    // Nothing goes before the database where no names are given.
    let plain = hash::crc32(&[b"postgres"]).wrapping_mul(1_486_364_155);
    assert_eq!(golang_migrate("postgres", &[]), Bigint(plain.into()));
    assert_eq!(GOOSE, symfony("goose"));
}

/// The factors are so small that the largest CRC-32 does not overflow a bigint.
#[test]
fn no_database_name_overflows() {
    assert!(0x3d32_ad9e_i64.checked_mul(u32::MAX.into()).is_some());
    assert!(2_053_462_845_i64.checked_mul(u32::MAX.into()).is_some());
}

#[test]
fn the_documented_name_of_sqlx_has_its_documented_number() {
    assert_eq!(sqlx("my first Postgres advisory lock!"), Bigint(-5560419505042474287));
}

#[test]
fn madelson_packs_up_to_nine_ascii_characters_into_a_pair() {
    check(
        madelson,
        &[
            ("job", Pair(-708897793, -1)),
            ("", Pair(i32::MAX, -1)),
            ("\0", Pair(0x00ff_ffff, -1)),
            ("\u{7f}", Pair(0xfeff_ffff_u32 as i32, -1)),
            // Nine times seven bits and a 0.
            ("AAAAAAAAA", Pair(0x8306_0c18_u32 as i32, 0x3060_c182)),
            ("\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}", Pair(-1, -2)),
        ],
    );
}

#[test]
fn madelson_reads_hexadecimal_numbers() {
    check(
        madelson,
        &[
            ("00000001,00000002", Pair(1, 2)),
            ("7fffffff,80000000", Pair(i32::MAX, i32::MIN)),
            ("ABCDEF01,abcdef01", Pair(0xabcd_ef01_u32 as i32, 0xabcd_ef01_u32 as i32)),
            ("0000000000000001", Bigint(1)),
            ("8000000000000000", Bigint(i64::MIN)),
            ("ffffffffFFFFFFFF", Bigint(-1)),
        ],
    );
}

#[test]
fn madelson_hashes_the_rest() {
    let hashed = [
        "my-resource-name",
        // Ten characters; nine of which one is not ASCII; 17 bytes that are 16 characters.
        "0123456789",
        "jöb",
        "é00000000000000f",
        // A sign, a space or another place of the comma is no hexadecimal number.
        "+000000000000001",
        "-000000000000001",
        " 000000000000001",
        "000000001,0000002",
        "+0000001,00000002",
        "00000001,0000000g",
        "00000001;00000002",
        "0000001,00000002",
        "00000001,00000002,",
        "0000000000000000f",
    ];
    for name in hashed {
        assert_eq!(madelson(name), sha1(name), "{name:?}");
    }
    check(madelson, &[("my-resource-name", Bigint(-7013951075416441247))]);
}

#[test]
fn distributed_lock_rs_has_the_numbers_of_madelson_in_one_space() {
    let scheme = |name: &str| distributed_lock_rs(name).expect("not empty");
    check_both(scheme, Bigint(-3044692832846610433), Bigint(-7013951075416441247));
    for name in ["a", "job", "AAAAAAAAA", "\u{7f}\0"] {
        let Pair(high, low) = madelson(name) else { panic!("a short name is a pair") };
        let number = (i64::from(high) << 32) | i64::from(low as u32);
        assert_eq!(scheme(name), Bigint(number), "{name:?}");
    }
}

#[test]
fn distributed_lock_rs_reads_numbers_as_rust_does() {
    let scheme = |name: &str| distributed_lock_rs(name).expect("not empty");
    check(
        scheme,
        &[
            ("7fffffffffffffff", Bigint(i64::MAX)),
            ("8000000000000000", sha1("8000000000000000")),
            ("-00000000000000f", Bigint(-15)),
            ("+00000000000000f", Bigint(15)),
            ("0000002a,7fffffff", Pair(42, i32::MAX)),
            ("0000002a,80000000", sha1("0000002a,80000000")),
            ("-2a,000000000001", Pair(-42, 1)),
            ("0,1,0000000000001", sha1("0,1,0000000000001")),
            (",000000000000001", sha1(",000000000000001")),
        ],
    );
}

#[test]
fn distributed_lock_rs_has_no_key_for_an_empty_name() {
    let error = distributed_lock_rs("").expect_err("refused");
    assert!(error.to_string().contains("at least one character"), "{error}");
}

#[test]
fn a_prefix_of_with_advisory_lock_is_cut_to_31_bits() {
    let crc = 2077810936;
    for (prefix, second) in [(7, 7), (-1, i32::MAX), (1 << 31, 0), (i64::MIN, 0), (1 << 40, 0)] {
        assert_eq!(with_advisory_lock("job", prefix), Pair(crc, second), "{prefix}");
    }
}

#[test]
fn a_prefix_of_river_is_the_upper_half() {
    for prefix in [1, -1, i32::MAX, i32::MIN, 0x4f47] {
        let Bigint(key) = river("job", prefix) else { panic!("a bigint") };
        assert_eq!((key >> 32, key as u32), (prefix.into(), 545665442), "{prefix}");
    }
}

#[test]
fn flyway_quotes_names_and_hashes_utf_16() {
    let number = |table: &str| Bigint(0x466c_7977_6179 + i64::from(hash::java(table)));
    assert_eq!(flyway("a\"b", "c"), number("\"a\"\"b\".\"c\""));
    assert_eq!(flyway("\u{1f600}", "t"), number("\"\u{1f600}\".\"t\""));
}
