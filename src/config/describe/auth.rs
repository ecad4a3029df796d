//! The text of `check` for `[[auth]]` sections.

use crate::config::value::duration_text;
use crate::policy::auth::{Kind, Method, Remote};

/// One line about a section.
pub fn text(method: &Method) -> String {
    let from: Vec<_> = method.from.iter().map(ToString::to_string).collect();
    let from = if from.is_empty() { String::new() } else { format!(" in {}", from.join(", ")) };
    let what = match &method.kind {
        Kind::ApiKeys(_) => format!("API keys{from}"),
        Kind::ClientCertificate => "client certificates".to_owned(),
        Kind::Forward(forward) => {
            let copied = match forward.copy.as_slice() {
                [] => String::new(),
                names => format!(", the upstream gets {}", names.join(", ")),
            };
            let kept = match forward.cache.as_slice() {
                [] => String::new(),
                names => format!(", answers depend on {}", names.join(", ")),
            };
            format!("forward auth by {}{copied}{kept}", server_text(&forward.server))
        }
        Kind::Introspection(one) => format!("tokens{from}, introspected by {}", server_text(&one.server)),
    };
    format!("{}: {what}", method.name)
}

fn server_text(server: &Remote) -> String {
    let mut text = format!("{} at {}", server.path, server.upstream.name);
    text += &format!(", within {}, {} at a time", duration_text(server.timeout_ms), server.max_pending);
    for (what, ms) in [("kept", server.admitted_ms), ("refusals", server.refused_ms)] {
        if ms > 0 {
            text += &format!(", {what} for {}", duration_text(ms));
        }
    }
    text
}
