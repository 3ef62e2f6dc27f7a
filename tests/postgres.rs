//! Against a real server.

mod support;

use distlock::{Context, Manager};
use std::time::{Duration, Instant};

#[test]
fn smoke() {
    let cluster = support::TempCluster::start();
    let manager = Manager::connect(cluster.url()).expect("connects");
    let ctx = Context::background();
    let lock = manager.try_lock(&ctx, 42).expect("answers").expect("free");
    assert!(lock.is_held());
    assert!(manager.try_lock(&ctx, 42).expect("answers").is_none());
    println!("{:?}", support::pg_locks_advisory(&mut cluster.sql()));
    lock.unlock().expect("released");
    println!("{:?}", support::pg_locks_advisory(&mut cluster.sql()));
    for _ in 0..3 {
        let start = Instant::now();
        for _ in 0..2000 {
            let lock = manager.try_lock(&ctx, 42).expect("answers").expect("free");
            drop(lock);
        }
        println!("{:?} per cycle", start.elapsed() / 2000);
    }
    std::thread::sleep(Duration::from_millis(100));
    manager.close();
}
