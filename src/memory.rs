//! The memory model: sizes that the worker and TLS work with, and that `check` adds up. The types
//! that take the memory assert at compile time that they stay within these sizes.

/// The largest read, and so the size of a worker's read buffer. The pool keeps as much in reserve.
pub const SCRATCH_BYTES: usize = 128 * 1024;
/// Pipes of one worker, for routes that splice; further sessions read and send instead. Two
/// descriptors each.
pub const PIPES_MAX: usize = 32;
/// The capacity of a pipe, in kernel memory.
pub const PIPE_BYTES: usize = 256 << 10;

/// Connections of health checks at a time; fewer where descriptors are few. Above that, checks
/// begin late.
pub const CHECKS_MAX: usize = 1_024;
/// What a health check holds at most: frames, or an incomplete message of a TLS handshake.
pub const CHECK_BYTES: usize = (64 << 10) + TLS_CONN_BYTES + TLS_HANDSHAKE_BYTES;

/// Calls in flight on a worker; more are not made.
pub const CALLS_MAX: usize = 1_024;
/// What a call holds at most: a response, an incomplete message of a TLS handshake.
pub const CALL_BYTES: usize = (80 << 10) + TLS_CONN_BYTES + TLS_HANDSHAKE_BYTES;

/// Answers about clients that a worker keeps for other requests, and their bytes.
pub const KEPT_MAX: usize = 4_096;
pub const KEPT_BYTES: usize = 4 << 20;

/// A place in a worker's queue of handshakes, with the reserve of vectors that have grown, and what
/// orders them.
pub const HANDSHAKE_PLACE_BYTES: usize = 128;
pub const HANDSHAKE_LANES_BYTES: usize = 112 << 10;
/// What a client that says nothing adds to its handshake, with the same reserve.
pub const HALF_OPEN_PLACE_BYTES: usize = 96;

/// User memory of an idle session, at most, and of a client that is kept without a request.
pub const SESSION_BYTES: usize = 768;
/// What limits on messages, bytes, control frames, fragments or age add to a session, with the
/// buckets that it may share with others, at most.
pub const LIMITER_BYTES: usize = 304;
/// What each bucket of its own adds to that.
pub const BUCKET_BYTES: usize = 128;
/// What a session takes whose client may send new credentials, without those, at most.
pub const REFRESH_BYTES: usize = 1024;
/// Kernel memory of the two TCP sockets of a session with empty buffers.
pub const SESSION_KERNEL_BYTES: usize = 8 << 10;
/// The largest answer or file of a source of endpoints.
pub const ANSWER_BYTES: usize = 8 << 20;
/// What a source holds at most: an answer, and what has been read from it.
pub const SOURCE_BYTES: usize = 2 * ANSWER_BYTES;
/// User memory of a shadow without its heads and its buffer, at most.
pub const SHADOW_BYTES: usize = 1536;
/// What TLS adds to each side of a session that uses it: keys and connection state.
pub const TLS_CONN_BYTES: usize = 3 << 10;
/// An incomplete TLS record that a connection keeps until the rest arrives.
pub const TLS_RECORD_BYTES: usize = 17 << 10;
/// Incomplete messages that a connection keeps during a TLS handshake.
pub const TLS_HANDSHAKE_BYTES: usize = 2 * TLS_RECORD_BYTES;
/// What TLS adds to a worker: cached key schedules, and one buffer each for plaintext and
/// ciphertext.
pub const TLS_WORKER_BYTES: usize = 1 << 20;

/// Results of verified passwords that are remembered, and the bytes of one in their tables.
pub const PASSWORD_RESULTS: usize = 8192;
pub const PASSWORD_RESULT_BYTES: usize = 184;
/// Clients whose limits are shared with other hosts at a time, and the bytes of one in the table of
/// the thread that shares them, the queue to it and a batch.
pub const SHARED_KEYS: usize = 65_536;
pub const SHARED_KEY_BYTES: usize = 256;
/// The largest file with denied addresses, and the most networks in one.
pub const DENY_FILE_BYTES: usize = 64 << 20;
pub const DENY_FILE_NETWORKS: usize = 1_000_000;
/// What such a file takes at most, while it is read: its text, what has been read from it (18 bytes
/// a network), the networks, and those that they replace (36 bytes each).
pub const DENY_FILE_MEMORY: usize = 150 << 20;
const _: () = assert!(DENY_FILE_BYTES + DENY_FILE_NETWORKS * (18 + 2 * 36) <= DENY_FILE_MEMORY);
/// Read of a file that a route serves at a time.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Questions of one worker that wait for the threads that read files, and so the most pieces that
/// it can be sent at once. Sessions beyond that stand in a line of the worker.
pub const PIECES_MAX: usize = 64;
