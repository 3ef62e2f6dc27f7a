//! The codec and the session without a socket: one statement out, one reply in.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use distlock::proto::backend::{Status, decode};
use distlock::proto::buffer::WriteBuf;
use distlock::proto::frontend::{KeyParameters, bind_key, execute, sync};

/// BindComplete, DataRow with a true, CommandComplete, ReadyForQuery: what a server sends.
const REPLY: &[u8] = b"2\0\0\0\x04D\0\0\0\x0b\0\x01\0\0\0\x01\x01C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";

fn encode(criterion: &mut Criterion) {
    let mut buf = WriteBuf::new(4096);
    criterion.bench_function("codec/encode Bind, Execute, Sync", |bencher| {
        bencher.iter(|| {
            bind_key(&mut buf, "t", KeyParameters::Bigint(black_box(42))).expect("it fits");
            execute(&mut buf).expect("it fits");
            sync(&mut buf).expect("it fits");
            let length = black_box(buf.pending()).len();
            buf.sent(length);
        });
    });
}

fn decode_reply(criterion: &mut Criterion) {
    criterion.bench_function("codec/decode one reply", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(REPLY);
            let mut messages = 0;
            while let Ok(Status::Complete { message, size }) = decode(rest) {
                black_box(message);
                rest = &rest[size..];
                messages += 1;
            }
            assert_eq!(messages, 4);
        });
    });
}

criterion_group!(benches, encode, decode_reply);
criterion_main!(benches);
