//! What a run came to, told to people and programs. Reads an `Outcome`; opens no socket.
