//! The fake server of the library's own tests. All but `good` and `judge` know nothing of it.
#![allow(dead_code, reason = "the tests use other parts of them")]

#[path = "../../../tests/replay/format.rs"]
pub(crate) mod format;
#[path = "../../../tests/replay/good.rs"]
pub(crate) mod good;
#[path = "../../../tests/replay/items.rs"]
pub(crate) mod items;
#[path = "../../../tests/replay/judge.rs"]
pub(crate) mod judge;
#[path = "../../../tests/replay/plain.rs"]
pub(crate) mod plain;
#[path = "../../../tests/replay/player.rs"]
pub(crate) mod player;
#[path = "../../../tests/replay/scram.rs"]
pub(crate) mod scram;
#[path = "../../../tests/replay/server.rs"]
pub(crate) mod server;
