//! What is left of the secrets of an exchange, and when.

use super::super::keys::{BLOCK, HASH};
use super::*;
use crate::wiped::{is_wiped_when_dropped, password};

#[test]
fn what_is_not_needed_any_more_is_wiped() {
    let client = signed_client();
    assert_eq!(*client.secrets.password.0, [0; BLOCK]);
    assert_eq!(*client.secrets.round, [0; HASH]);
    assert_eq!(*client.secrets.salted, [0; HASH]);
}

#[test]
fn an_exchange_that_is_dropped_half_way_is_wiped() {
    let begun = || {
        let mut client = client(&password(), ANY);
        client.server_first(format!("r={NONCE}x,s=AA==,i=4096").as_bytes()).unwrap();
        assert!(!client.derive(7));
        client
    };
    assert!(is_wiped_when_dropped(begun(), |client| &*client.secrets.password.0));
    assert!(is_wiped_when_dropped(begun(), |client| &*client.secrets.round));
    assert!(is_wiped_when_dropped(begun(), |client| &*client.secrets.salted));
    assert!(is_wiped_when_dropped(signed_client(), |client| &*client.secrets.server_signature));
}
