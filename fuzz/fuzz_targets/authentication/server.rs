//! A server that may say anything, and finds the right things easily.

use distlock::proto::rehearsal::PID;
use distlock_fuzz::scram::ServerFirst;
use distlock_fuzz::{Input, NONCE, message};

use super::model::{self, Model};

/// A message: a byte for its kind, and what that one reads. Zeros are a good login.
pub fn say(input: &mut Input<'_>, model: &Model) -> Vec<u8> {
    let kind = input.u8();
    match kind % 16 {
        0 => request(0, b""),
        1 => request(3, b""),
        2 => request(5, input.bytes(4)),
        3 => request(10, mechanisms(kind >> 4, input).as_slice()),
        4 => request(11, &server_first(kind >> 4, input)),
        5 => request(12, &server_final(kind >> 4, input, model)),
        6 => request([2, 7, 8, 9, 1, 4, 6, 13][usize::from(kind >> 5)], input.counted()),
        7 => negotiate(kind >> 4, input),
        8 => {
            let process_id = if kind & 0x80 == 0 { PID } else { input.i32() };
            let key = if kind & 0x40 == 0 { &b"key!"[..] } else { input.counted() };
            message_of(b'K', &[&process_id.to_be_bytes()[..], key])
        }
        9 => message_of(b'Z', &[&[b"IIIIIITE"[usize::from(kind >> 5)]]]),
        10 => {
            let versions = ["15.18 (Debian)", "10.1", "12", "9.6.24", "", "18beta1", "x", "013"];
            message_of(
                b'S',
                &[b"server_version\0", versions[usize::from(kind >> 5)].as_bytes(), b"\0"],
            )
        }
        11 => {
            let parameters: [&[u8]; 4] = [
                b"in_hot_standby\0off\0",
                b"in_hot_standby\0on\0",
                b"crdb_version\0v26\0",
                b"client_encoding\0UTF8\0",
            ];
            message(b'S', parameters[usize::from(kind >> 6)])
        }
        12 => message(b'N', [&b"SNOTICE\0C00000\0\0"[..], b"C57P01\0\0"][usize::from(kind >> 7)]),
        13 => message(b'A', b"\0\0\0\x07channel\0payload\0"),
        14 => message(b'E', b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0"),
        _ => {
            let tags = b"R2C1DSKv";
            let count = usize::from(input.u16()) % 2_100;
            message(tags[usize::from(kind >> 5)], input.bytes(count))
        }
    }
}

fn message_of(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    message(tag, &parts.concat())
}

fn request(number: i32, body: &[u8]) -> Vec<u8> {
    message_of(b'R', &[&number.to_be_bytes(), body])
}

fn mechanisms(knob: u8, input: &mut Input<'_>) -> Vec<u8> {
    let list: &[u8] = match knob {
        0 => b"SCRAM-SHA-256\0\0",
        1 => b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
        2 => b"SCRAM-SHA-256-PLUS\0\0",
        3 => b"OAUTHBEARER\0SCRAM-SHA-256\0\0",
        4 => b"\0",
        5 => b"SCRAM-SHA-256\0",
        6 => b"SCRAM-SHA-256\0\0\0",
        7 => b"\0SCRAM-SHA-256\0\0",
        8 => b"SCRAM-SHA-256",
        9 => b"",
        _ => input.counted(),
    };
    list.to_vec()
}

fn server_first(knob: u8, input: &mut Input<'_>) -> Vec<u8> {
    let count = input.u8();
    // Hexadecimal, so that nothing in it is a piece of the password.
    let own = format!("{:08x}", input.i32());
    let first = ServerFirst {
        nonce: format!("{NONCE}{own}"),
        salt: [&b"salt"[..], input.counted()].concat(),
        iterations: u32::from(count % 20),
    };
    let text = match knob {
        0..=5 => ServerFirst { iterations: first.iterations % 15 + 2, ..first }.text(),
        6 => first.text(),
        7 => ServerFirst { nonce: own, ..first }.text(),
        8 => ServerFirst { nonce: NONCE.to_owned(), ..first }.text(),
        9 => ServerFirst { salt: Vec::new(), ..first }.text(),
        10 => format!("{},x=1", first.text()),
        11 => format!("m=1,{}", first.text()),
        12 => first.text().replace(",i=", ",i=0"),
        13 => first.text().replace(",i=", ",i=+"),
        14 => format!("r={NONCE}{},s=c2FsdB==,i=4", "n".repeat(usize::from(count))),
        _ => return input.counted().to_vec(),
    };
    text.into_bytes()
}

fn server_final(knob: u8, input: &mut Input<'_>, model: &Model) -> Vec<u8> {
    let right = model.exchange().map_or_else(|| "v=cm1GOVk=".to_owned(), model::right_final);
    let mut bytes = right.into_bytes();
    match knob {
        0..=5 => {}
        6 => bytes.truncate(2),
        7 => bytes.truncate(bytes.len() - 1),
        8 => bytes.extend_from_slice(b",x=1"),
        9 => bytes.push(b'='),
        10 => bytes = b"e=invalid-proof".to_vec(),
        11 => bytes[0] = b'V',
        12 => {
            let place = usize::from(input.u8()) % bytes.len();
            bytes[place] ^= 1 << (input.u8() % 8);
        }
        13 => bytes.clear(),
        _ => bytes = input.counted().to_vec(),
    }
    bytes
}

fn negotiate(knob: u8, input: &mut Input<'_>) -> Vec<u8> {
    let version = match knob & 3 {
        0 => 196_608,
        1 => 196_610,
        2 => 196_607 + i32::from(input.u8()) % 8,
        _ => input.i32(),
    };
    let (count, options): (i32, &[u8]) = match knob >> 2 {
        0 | 1 => (0, b""),
        2 => (1, b"_pq_.x\0"),
        _ => (input.i32(), b"_pq_.x\0_pq_.y\0"),
    };
    message_of(b'v', &[&version.to_be_bytes(), &count.to_be_bytes(), options])
}
