//! Headers of the PROXY protocol, as bytes written out by hand: what clients send before everything
//! else in schedules with them, and what a backend must get first.

use crate::kernel::{Id, Kernel, Micros};
use crate::schedule::{Opening, Session};

/// What clients connect to, where a header does not say otherwise.
pub const LOCAL: ([u8; 4], u16) = ([198, 51, 100, 1], 80);

/// The header of a session's client, and whether it leaves before its end.
pub fn of_client(index: usize, session: &Session) -> (Vec<u8>, bool) {
    let mut header = whole(index, session.key);
    let torn = matches!(session.opening, Opening::Leaves { .. }) && session.key.is_multiple_of(3);
    if torn {
        header.truncate(1 + session.key * 5 % (header.len() - 1));
    }
    (header, torn)
}

/// The whole header of a client.
pub fn whole(index: usize, key: usize) -> Vec<u8> {
    let (last, port) = (1 + index as u8, 1000 + index as u16);
    let [high, low] = port.to_be_bytes();
    let v2 = |command: u8, family: u8, rest: &[u8]| {
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, family, 0, rest.len() as u8][..], rest].concat()
    };
    let inet = [203, 0, 113, last, 192, 0, 2, 99, high, low, 0, 99];
    match key % 6 {
        0 | 1 => format!("PROXY TCP4 203.0.113.{last} 192.0.2.99 {port} 99\r\n").into_bytes(),
        2 => v2(0x21, 0x11, &inet),
        3 => v2(0x21, 0x11, &[&inet[..], &[0x04, 0, 60], &[0; 60]].concat()),
        4 => b"PROXY UNKNOWN\r\n".to_vec(),
        _ => v2(0x20, 0, &[]),
    }
}

/// Sends what is left of a header, in one piece or in several. Whether all of it is sent; the error
/// is when it goes on after a pause.
pub fn send(header: &mut Vec<u8>, broken: &mut bool, sock: Id, kernel: &mut Kernel) -> Result<bool, Micros> {
    while !header.is_empty() && !*broken {
        let most = if kernel.rng.one_in(2) { 1 } else { header.len() };
        let n = kernel.rng.size(1, most);
        match kernel.send(sock, &header[..n], usize::MAX) {
            Ok(n) => drop(header.drain(..n)),
            Err(libc::EAGAIN) => return Ok(false),
            Err(_) => *broken = true,
        }
        if kernel.rng.one_in(3) {
            return Err(kernel.now + kernel.rng.below(3_000));
        }
    }
    Ok(header.is_empty())
}

/// What a backend of this session gets before everything else.
pub fn for_backend(index: usize, key: usize) -> Vec<u8> {
    let (last, port) = (1 + index, 1000 + index);
    match key % 6 {
        0..4 => format!("PROXY TCP4 203.0.113.{last} 192.0.2.99 {port} 99\r\n").into_bytes(),
        _ => format!("PROXY TCP4 192.0.2.{last} 198.51.100.1 {port} 80\r\n").into_bytes(),
    }
}
