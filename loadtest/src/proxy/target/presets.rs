//! The predefined targets: program, arguments, and configuration from
//! `loadtest/peers`. One table; what differs from run to run is in braces in it and in the
//! configurations, and is filled in here.

use crate::Failure;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A proxy known by name.
pub struct Preset {
    pub name: &'static str,
    program: Program,
    /// With {config}, {port}, ... in them.
    pub arguments: &'static [&'static str],
    /// File name, and the text that this program was built with.
    pub config: Option<(&'static str, &'static str)>,
    /// The value of {access}: the line that switches the access log off, or on.
    access: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    /// This program, in another role.
    Own,
    Framegate,
    /// Another program: installed, or given by the environment variable of its name in capitals.
    Peer(&'static str),
}

macro_rules! config {
    ($file:literal) => {
        Some(($file, include_str!(concat!("../../../peers/", $file))))
    };
}

const RELAY: Preset = Preset {
    name: "relay",
    program: Program::Own,
    arguments: &["relay", "--listen", "127.0.0.1:{port}", "--upstream", "{backend}"],
    config: None,
    access: "",
};
const RELAY_SPLICE: &[&str] = &["relay", "--splice", "--listen", "127.0.0.1:{port}", "--upstream", "{backend}"];
const FRAMEGATE: Preset = Preset {
    name: "framegate",
    program: Program::Framegate,
    arguments: &["run", "-c", "{config}"],
    config: config!("framegate.toml"),
    access: "off",
};
const NGINX: Preset = Preset {
    name: "nginx",
    program: Program::Peer("nginx"),
    arguments: &["-p", "{dir}", "-e", "{dir}/nginx.err", "-c", "{config}"],
    config: config!("nginx.conf"),
    access: "off",
};
const HAPROXY: Preset = Preset {
    name: "haproxy",
    program: Program::Peer("haproxy"),
    arguments: &["-db", "-f", "{config}"],
    config: config!("haproxy.cfg"),
    access: "no log",
};
const ENVOY: Preset = Preset {
    name: "envoy",
    program: Program::Peer("envoy"),
    arguments: &["-c", "{config}", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"],
    config: config!("envoy.yaml"),
    access: "",
};

const CADDY: Preset = Preset {
    name: "caddy-tls",
    program: Program::Peer("caddy"),
    arguments: &["run", "--adapter", "caddyfile", "--config", "{config}"],
    config: config!("caddy-tls.caddyfile"),
    access: "",
};
const SOZU: Preset = Preset {
    name: "sozu-tls",
    program: Program::Peer("sozu"),
    arguments: &["start", "-c", "{config}"],
    config: config!("sozu-tls.toml"),
    access: "",
};

const RELAY_TLS: &[&str] = &[
    "relay",
    "--listen",
    "127.0.0.1:{port}",
    "--upstream",
    "{backend}",
    "--cert",
    "{dir}/cert.pem",
    "--key",
    "{dir}/key.pem",
];

pub const KNOWN: [Preset; 23] = [
    RELAY,
    Preset { name: "relay2", ..RELAY },
    Preset { name: "relay-splice", arguments: RELAY_SPLICE, ..RELAY },
    FRAMEGATE,
    Preset { name: "framegate-splice", config: config!("framegate-splice.toml"), ..FRAMEGATE },
    Preset { name: "framegate-limits", config: config!("framegate-limits.toml"), ..FRAMEGATE },
    Preset { name: "framegate-log", access: "{dir}/access.log", ..FRAMEGATE },
    NGINX,
    Preset { name: "nginx-bulk", config: config!("nginx-bulk.conf"), ..NGINX },
    Preset { name: "nginx-log", access: "{dir}/access.log combined buffer=64k flush=1s", ..NGINX },
    HAPROXY,
    Preset { name: "haproxy-bulk", config: config!("haproxy-bulk.cfg"), ..HAPROXY },
    Preset { name: "haproxy-splice", config: config!("haproxy-splice.cfg"), ..HAPROXY },
    // Its standard output is a file in {dir}.
    Preset { name: "haproxy-log", access: "log stdout format raw local0\n    option httplog", ..HAPROXY },
    ENVOY,
    Preset { name: "relay-tls", arguments: RELAY_TLS, ..RELAY },
    Preset { name: "relay2-tls", arguments: RELAY_TLS, ..RELAY },
    Preset { name: "framegate-tls", config: config!("framegate-tls.toml"), ..FRAMEGATE },
    Preset { name: "nginx-tls", config: config!("nginx-tls.conf"), ..NGINX },
    Preset { name: "haproxy-tls", config: config!("haproxy-tls.cfg"), ..HAPROXY },
    Preset { name: "envoy-tls", config: config!("envoy-tls.yaml"), ..ENVOY },
    CADDY,
    SOZU,
];

/// Measured when nobody says which, as far as they are there.
pub const USUAL: [&str; 6] = ["relay", "relay2", "framegate", "nginx", "haproxy", "envoy"];

/// What is filled into arguments and configurations.
pub struct Places<'a> {
    pub port: u16,
    pub backend: SocketAddr,
    pub dir: &'a Path,
}

impl Preset {
    pub fn find(name: &str) -> Option<&'static Preset> {
        KNOWN.iter().find(|preset| preset.name == name)
    }

    /// Somebody else's proxy.
    pub fn is_peer(&self) -> bool {
        matches!(self.program, Program::Peer(_))
    }

    /// Where its program is; `framegate` is where that would be.
    pub fn program(&self, framegate: &Path) -> Result<PathBuf, Failure> {
        match self.program {
            Program::Own => Ok(std::env::current_exe()?),
            Program::Framegate if framegate.is_file() => Ok(framegate.to_owned()),
            Program::Framegate => Err(format!("there is no framegate at {}: build it", framegate.display()).into()),
            Program::Peer(name) => {
                installed(name).ok_or_else(|| format!("{name} is not installed: see loadtest/peers/setup").into())
            }
        }
    }

    /// `text` of this proxy, an argument or a configuration, for these places.
    pub fn fill(&self, text: &str, places: &Places) -> String {
        // First, as it has places of its own.
        places.fill(&text.replace("{access}", self.access))
    }
}

impl Places<'_> {
    pub fn fill(&self, text: &str) -> String {
        let dir = self.dir.display().to_string();
        text.replace("{port}", &self.port.to_string())
            .replace("{backend}", &self.backend.to_string())
            .replace("{backend_host}", &self.backend.ip().to_string())
            .replace("{backend_port}", &self.backend.port().to_string())
            .replace("{dir}", &dir)
    }
}

/// Named by the environment, on the path (servers often live where only root's goes), or where
/// `loadtest/peers/setup` puts what no package manager of the system has.
fn installed(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(name.to_uppercase()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from).or(home);
    let folders = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .chain(cache.map(|cache| cache.join("framegate-peers/bin")));
    named.or_else(|| folders.map(|folder| folder.join(name)).find(|file| file.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_filled() {
        let (backend, dir) = (SocketAddr::from(([127, 0, 0, 1], 9)), Path::new("/d"));
        let places = Places { port: 7, backend, dir };
        for preset in &KNOWN {
            let config = preset.config.map(|(_, text)| text).into_iter();
            // The path of the configuration is the caller's.
            let arguments = preset.arguments.iter().copied().filter(|argument| *argument != "{config}");
            for text in config.chain(arguments) {
                let filled = preset.fill(text, &places);
                let is_word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                let mut left = filled.split('{').skip(1).filter_map(|text| text.split_once('}'));
                assert!(!left.any(|(word, _)| !word.is_empty() && is_word(word)), "{}: {filled}", preset.name);
            }
        }
    }

    #[test]
    fn names_are_told_apart_and_the_usual_ones_are_known() {
        for (index, preset) in KNOWN.iter().enumerate() {
            assert!(KNOWN.iter().skip(index + 1).all(|other| other.name != preset.name), "{}", preset.name);
        }
        assert!(USUAL.iter().all(|name| Preset::find(name).is_some()));
        let peers = |name| Preset::find(name).is_some_and(Preset::is_peer);
        assert!(peers("nginx-bulk") && peers("envoy") && !peers("relay2") && !peers("framegate-log"));
    }

    #[test]
    fn logs_are_off_unless_their_name_says_so() {
        let places = Places { port: 7, backend: SocketAddr::from(([127, 0, 0, 1], 9)), dir: Path::new("/d") };
        let config = |name| Preset::find(name).map(|preset| preset.fill(preset.config.unwrap().1, &places)).unwrap();
        assert!(config("nginx").contains("access_log off;") && config("haproxy").contains("\n    no log\n"));
        assert!(config("nginx-log").contains("access_log /d/access.log combined"));
        assert!(config("haproxy-log").contains("\n    option httplog\n"));
        assert!(config("framegate-log").contains("access = \"/d/access.log\""));
    }
}
