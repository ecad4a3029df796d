//! The access log: one record at a session's start, one at its end; a ring per worker, one writer thread
//! that formats. A worker never waits for it: a full ring loses the line, and the loss is counted and said.
