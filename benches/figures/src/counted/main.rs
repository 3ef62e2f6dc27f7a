//! The process whose allocations, memory, wake-ups, system calls and instructions are counted. It
//! does one thing, which its arguments name, and prints what it has counted itself; the program
//! `figures` starts it, and puts strace and valgrind around it.
//!
//! | arguments | |
//! |---|---|
//! | `cycles URL COUNT` | so many times try_lock and drop, on one thread |
//! | `allocations URL` | the allocations of all kinds of cycles |
//! | `held URL COUNT` | the memory of so many held locks |
//! | `idle URL SECONDS` | the memory, and the wake-ups, of a manager with nothing to do |

#[path = "../../../../tests/alloc/counting.rs"]
mod counting;
#[path = "../../../../tests/alloc/cycles.rs"]
mod cycles;
#[path = "../holding.rs"]
mod holding;
#[path = "../../../../tests/support/mod.rs"]
mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use distlock::{Config, Context, LockSet, Manager};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = |text: &str| text.parse::<u32>().expect("a number");
    match arguments[..] {
        ["cycles", url, number] => run_cycles(url, count(number)),
        ["allocations", url] => {
            for count in cycles::count_all(url) {
                println!("{count}");
            }
        }
        ["held", url, number] => hold(url, count(number)),
        ["idle", url, seconds] => idle(url, Duration::from_secs(count(seconds).into())),
        _ => panic!("it is started by `figures`, with other arguments than {arguments:?}"),
    }
}

fn run_cycles(url: &str, count: u32) {
    let manager = Manager::connect(url).expect("a session");
    let context = Context::background();
    for _ in 0..count {
        drop(manager.try_lock(&context, 1).expect("an answer").expect("it is free"));
    }
}

fn hold(url: &str, count: u32) {
    let before = counting::live();
    let config: Config = url.parse().expect("a URL");
    let manager = Manager::connect(config.max_locks(count)).expect("a session");
    println!("connected {}", counting::live() - before);
    let sets = holding::lock_all(&manager, 1, count);
    println!("bytes {}", counting::live() - before);
    assert!(sets.iter().all(LockSet::is_held), "all are held to the end");
    assert_eq!(sets.iter().map(LockSet::len).sum::<usize>(), count as usize);
}

/// After this long a manager has settled: what it does once after connecting is done.
const SETTLED: Duration = Duration::from_secs(2);

fn idle(url: &str, span: Duration) {
    let before = counting::live();
    let manager = Manager::connect(url).expect("a session");
    thread::sleep(SETTLED);
    println!("heap {}", counting::live() - before);
    let (start, wakes) = (Instant::now(), wake_ups());
    thread::sleep(span);
    println!("wakes {}", wake_ups() - wakes);
    println!("seconds {}", start.elapsed().as_secs_f64());
    drop(manager);
}

/// How often the threads of this process, but for this one, were woken so far: the kernel counts
/// each time one goes to sleep by itself.
fn wake_ups() -> u64 {
    let own = std::process::id().to_string();
    let mut wakes = 0;
    for task in fs::read_dir("/proc/self/task").expect("Linux").flatten() {
        // The main thread has the process's id, and is the one that counts.
        if task.file_name().to_string_lossy() == own {
            continue;
        }
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        wakes += line.and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or_default();
    }
    wakes
}
