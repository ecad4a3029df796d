//! The control thread: admin listener, reload. Never on the data path.
