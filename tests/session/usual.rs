//! What a server usually answers is taken in one stride: it must mean what its messages mean.
//! [`Script::play_in_bytes`] compares with the same bytes, one by one.

use distlock::proto::frontend::KeyParameters;
use distlock::proto::statement::{Run, Statement, Swap};

use super::backend::{self, bind_complete, command_complete, ready};
use super::script::{Script, events};

const KEY: KeyParameters = KeyParameters::Bigint(42);

/// Scripts up to where an answer may follow: of statements that take one byte, and of others.
fn asked() -> Vec<Script> {
    let prepared = |statement: Statement| {
        Script::ready().submits(statement, 1).syncs(9).says(backend::message(b'1', b""))
    };
    vec![
        Script::ready().submits(Statement::TryLock(KEY), 1).syncs(9),
        Script::ready()
            .submits(Statement::TryLock(KEY), 1)
            .submits(Statement::Unlock(KEY), 2)
            .syncs(9),
        prepared(Statement::Release(KEY)),
        prepared(Statement::Token),
        prepared(Statement::Listen(0)),
        Script::ready()
            .submits_run(Run::TryLock, &[1, 2], 1)
            .syncs(9)
            .says(backend::message(b'1', b"")),
        Script::ready()
            .submits_swap(Swap { release: 1, try_lock: 1 }, [1, 2])
            .syncs(9)
            .says(backend::message(b'1', b"")),
        Script::ready().syncs(9),
        Script::ready(),
    ]
}

fn usual(byte: u8) -> Vec<u8> {
    let row = backend::message(b'D', &[0, 1, 0, 0, 0, 1, byte]);
    [bind_complete(), row, command_complete(), ready(b'I')].concat()
}

#[test]
fn every_byte_means_the_same_in_one_stride() {
    for byte in 0..=u8::MAX {
        for script in asked() {
            script.says(usual(byte)).play_in_bytes();
        }
    }
}

#[test]
fn an_answer_that_is_unusual_in_any_place_means_the_same_in_one_stride() {
    for at in 0..usual(1).len() {
        for bits in [0x01, 0x20, 0x80] {
            let mut answer = usual(1);
            answer[at] ^= bits;
            for script in asked() {
                script.says(answer.clone()).play_in_bytes();
            }
        }
    }
}

#[test]
fn an_answer_may_follow_another_in_the_same_piece() {
    let [_, two, ..] = &asked()[..] else { panic!("more than one") };
    let first = &usual(1)[..usual(1).len() - ready(b'I').len()];
    let both = two.clone().says([first, &usual(0)].concat());
    assert_eq!(events(&both).len(), 3, "two answers, and the Sync's");
}
