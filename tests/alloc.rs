//! Counts every allocation of the whole process, all threads, during cycles of lock and release
//! against a real server, after a warm-up. The goal is zero.
//!
//! A binary of its own, since the allocator is the process's; one test, since a second one would
//! be counted too.

#[path = "alloc/counting.rs"]
mod counting;
#[path = "alloc/cycles.rs"]
mod cycles;
mod support;

#[test]
fn a_cycle_allocates_nothing() {
    let cluster = support::TempCluster::start();
    let counts = cycles::count_all(&cluster.url());
    for count in &counts {
        println!("{count}");
    }
    let total: u64 = counts.iter().map(|count| count.allocations).sum();
    assert_eq!(total, 0, "allocations in all cycles");
}
