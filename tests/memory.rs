//! What a manager keeps on the heap, counted exactly: with nothing to do, and for each lock that is
//! held. The limits are where it is now; the goals are those of `benches/figures`.
//!
//! A binary of its own, since the allocator is the process's; one test, since a second one would
//! be counted too.

#[path = "alloc/counting.rs"]
mod counting;
mod support;

use std::time::Duration;

use distlock::{Config, Context, LockSet, Manager};

/// Of a manager with all limits at their defaults. The goal is 256 KiB.
const IDLE_MAX: u64 = 190 * 1024;

/// Of each held lock, with what was set aside for it. The goal is 200.
const LOCK_MAX: u64 = 210;

/// The same where they are asked for under a context that can be cancelled: that has to know them.
const CHILD_MAX: u64 = 370;

/// Two managers that hold so many: what both have is not the locks'.
const HELD: [u32; 2] = [1_000, 11_000];

/// So many share the server's transactions, which are dear where many locks are held.
const AT_ONCE: u32 = 1_000;

#[test]
fn what_a_manager_keeps_in_memory_is_bounded_and_so_is_what_a_held_lock_takes() {
    let cluster = support::TempCluster::start();
    let before = counting::live();
    let manager = Manager::connect(cluster.url()).expect("a session");
    let idle = counting::live() - before;
    println!("{idle} bytes of an idle manager");
    assert!(idle <= IDLE_MAX, "{idle} bytes of an idle manager");
    drop(manager);
    wait_for_the_end_of_all_since(before);

    for (what, parent, limit) in [
        ("held lock", Context::background as fn() -> Context, LOCK_MAX),
        ("held lock under a context that can be cancelled", child, CHILD_MAX),
    ] {
        let [few, many] = HELD.map(|count| held(&cluster.url(), parent, count));
        let each = (many - few) / u64::from(HELD[1] - HELD[0]);
        println!("{each} bytes of each {what}");
        assert!(each <= limit, "{each} bytes of each {what}");
    }
}

fn child() -> Context {
    Context::background().with_cancel().0
}

/// The bytes of a manager that holds so many locks, which are all that it may hold.
fn held(url: &str, parent: fn() -> Context, count: u32) -> u64 {
    let before = counting::live();
    let config: Config = url.parse().expect("a URL");
    let manager = Manager::connect(config.max_locks(count)).expect("a session");
    let context = parent();
    let mut sets: Vec<LockSet> = Vec::new();
    for first in (0..count).step_by(AT_ONCE as usize) {
        // The other manager's keys may not be free yet.
        let keys = (first..first + AT_ONCE).map(|key| i64::from(count) << 32 | i64::from(key));
        let request = manager.acquire_all(keys).context(&context);
        sets.push(request.try_now().expect("an answer").expect("they are free"));
    }
    let bytes = counting::live() - before;
    assert!(sets.iter().all(LockSet::is_held), "all are held to the end");
    drop((sets, manager, context));
    wait_for_the_end_of_all_since(before);
    bytes
}

/// Nothing takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// What a manager does not give back: caches of the process, some hundred bytes.
const REST: u64 = 4 * 1024;

/// The last to have a manager's memory may be its thread, which ends a moment later.
fn wait_for_the_end_of_all_since(before: u64) {
    support::wait_until("the memory is free", LIMIT, || counting::live() <= before + REST);
}
