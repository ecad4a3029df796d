//! Shared by the backends written in Rust: payloads, and records of ended sessions with the port
//! that serves them.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

const UNIT: &str = "framegate é € 😀 ";
const LATE: Duration = Duration::from_secs(15);

/// The payloads of the peers' tests, the same in every language.
pub fn pattern(kind: &str, size: usize, seed: usize) -> Vec<u8> {
    if kind == "text" {
        let mut text = UNIT.repeat(size / UNIT.len()).into_bytes();
        text.resize(size, b'x');
        return text;
    }
    let byte = |i: usize| (i * 31 + (i >> 8) * 7 + seed) as u8;
    let block: Vec<u8> = (0..size.min(65521)).map(byte).collect();
    block.iter().copied().cycle().take(size).collect()
}

/// The query of a request target, as a map; plain words only, nothing is decoded.
pub fn query(target: &str) -> HashMap<String, String> {
    let text = target.split_once('?').map_or("", |(_, q)| q);
    text.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// How sessions ended, by id. A query waits for the end of its session.
#[derive(Clone, Default)]
pub struct Records(Arc<(Mutex<HashMap<String, Value>>, Condvar)>);

impl Records {
    pub fn set(&self, id: &str, record: Value) {
        self.0.0.lock().unwrap().insert(id.to_owned(), record);
        self.0.1.notify_all();
    }

    pub fn wait(&self, id: &str) -> Value {
        let map = self.0.0.lock().unwrap();
        let (map, _) = self.0.1.wait_timeout_while(map, LATE, |m| !m.contains_key(id)).unwrap();
        map.get(id).cloned().unwrap_or_else(|| json!({ "error": "the session has not ended" }))
    }

    /// Serves the records to clients in other languages, for the life of the process; the port.
    pub fn serve(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let records = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let records = records.clone();
                thread::spawn(move || records.answer(stream));
            }
        });
        port
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut id = String::new();
        if BufReader::new(&stream).read_line(&mut id).is_ok() {
            let _ = writeln!(stream, "{}", self.wait(id.trim()));
        }
    }
}

/// Fetches the record of an ended session from a backend in any language.
pub fn fetch(control: u16, id: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", control)).unwrap();
    stream.set_read_timeout(Some(LATE + Duration::from_secs(5))).unwrap();
    writeln!(stream, "{id}").unwrap();
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line);
    read.ok().and_then(|_| serde_json::from_str(&line).ok()).unwrap_or_else(|| json!({ "error": "no record" }))
}

/// Compares a record with what the scenario expects the backend to see.
pub fn compare(record: &Value, want: &Value) -> Result<(), String> {
    if let Some(e) = record.get("error") {
        return Err(format!("backend: {e}"));
    }
    for (k, v) in want.as_object().into_iter().flatten() {
        let got = &record[if k == "wire_max" { "wire" } else { k }];
        let fine = match k.as_str() {
            "wire_max" => got.as_u64() <= v.as_u64(),
            "pings" | "pongs" => got.as_u64() >= v.as_u64(),
            _ => got == v,
        };
        if !fine {
            return Err(format!("backend saw {k} {got}, not {v}"));
        }
    }
    Ok(())
}
