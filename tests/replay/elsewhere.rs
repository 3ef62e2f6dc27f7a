//! stub
pub const TESTS: [(usize, &str, &str); 0] = [];
