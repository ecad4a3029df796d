//! Files that a worker serves: what it asks the threads that open and read them (`crate::files`). A
//! session has one question at a time, and its next one comes when its client has taken what was
//! read: nothing is held but a piece ([`crate::memory::PIECE_BYTES`]). The way to the threads and
//! back is `service.rs`.

use super::token::SlotKey;
use crate::memory::PIECES_MAX;
use crate::policy::files::Wanted;
use crate::service;
use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

/// What a session asks of a file.
#[derive(Debug)]
pub enum Ask {
    /// The head of the response, with the first bytes.
    Open(Box<Wanted>),
    Read(Rest),
}

/// What is left of the body of a response.
#[derive(Debug, Clone)]
pub struct Rest {
    pub file: Arc<File>,
    /// The next byte, and the one behind the last.
    pub at: u64,
    pub end: u64,
}

/// A part of a response, in its order.
#[derive(Debug)]
pub struct Piece {
    pub bytes: Vec<u8>,
    pub then: Then,
}

#[derive(Debug)]
pub enum Then {
    /// The response is complete.
    End,
    Read(Rest),
    /// There is less than was declared, or it cannot be read.
    Cut,
}

/// One question. Without an answer the file is cut.
pub type FileQuestion = service::Question<Ask, Piece>;

impl service::Answer for Piece {
    fn missing() -> Piece {
        Piece { bytes: Vec::new(), then: Then::Cut }
    }
}

/// The questions of a worker that are under way, and the sessions that wait to ask theirs.
#[derive(Debug, Default)]
pub struct Asked {
    under_way: usize,
    line: VecDeque<SlotKey>,
    number: u32,
}

impl Asked {
    /// One more question is asked: its number. `None`: `key` waits in the line.
    pub fn begin(&mut self, key: SlotKey) -> Option<u32> {
        if self.under_way >= PIECES_MAX {
            self.line.push_back(key);
            return None;
        }
        self.under_way += 1;
        self.number = self.number.wrapping_add(1);
        Some(self.number)
    }

    /// A question has been answered.
    pub fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The next session of the line, if one more question can be asked.
    pub fn next_in_line(&mut self) -> Option<SlotKey> {
        if self.under_way < PIECES_MAX { self.line.pop_front() } else { None }
    }
}

/// What a pair needs whose upstream is a file.
#[derive(Debug)]
pub struct Serving {
    /// What is asked next.
    pub next: Option<Ask>,
    /// It stands in the line.
    pub waits: bool,
    /// The question that is under way.
    pub asked: Option<u32>,
}

impl Serving {
    pub fn new(wanted: Box<Wanted>) -> Serving {
        Serving { next: Some(Ask::Open(wanted)), waits: false, asked: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn ask() -> Ask {
        Ask::Read(Rest { file: Arc::new(File::open("/dev/null").unwrap()), at: 0, end: 1 })
    }

    #[test]
    fn a_question_that_is_dropped_is_answered() {
        let (pieces, answers) = channel();
        drop(FileQuestion::new(ask(), move |piece| pieces.send(piece).unwrap()));
        assert!(matches!(answers.recv(), Ok(Piece { bytes, then: Then::Cut }) if bytes.is_empty()));
        let (pieces, answers) = channel();
        let (asker, questions) = service::queue(1);
        drop(questions);
        drop(asker.ask(FileQuestion::new(ask(), move |piece| pieces.send(piece).unwrap())));
        assert!(matches!(answers.recv(), Ok(Piece { then: Then::Cut, .. })));
    }

    #[test]
    fn sessions_beyond_the_limit_stand_in_a_line() {
        let key = |slot: usize| SlotKey { slot: slot as u32, generation: 1 };
        let mut asked = Asked::default();
        let numbers: Vec<_> = (0..PIECES_MAX + 2).map(|slot| asked.begin(key(slot))).collect();
        assert!(numbers[..PIECES_MAX].iter().all(Option::is_some) && numbers[PIECES_MAX..] == [None, None]);
        assert_eq!(asked.next_in_line(), None);
        asked.end();
        assert_eq!(asked.next_in_line(), Some(key(PIECES_MAX)));
        assert!(asked.begin(key(PIECES_MAX)).is_some());
        assert_eq!(asked.next_in_line(), None);
        asked.end();
        assert_eq!((asked.next_in_line(), asked.next_in_line()), (Some(key(PIECES_MAX + 1)), None));
    }
}
