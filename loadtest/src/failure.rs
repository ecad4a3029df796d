//! Errors that end the process, each in one sentence.

/// An error that is printed and ends the process; exit code 1, or 2 for a [`Usage`].
pub type Failure = Box<dyn std::error::Error>;

/// The command line or a scenario file is wrong: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

impl From<String> for Usage {
    fn from(message: String) -> Usage {
        Usage(message)
    }
}
