//! Flags and files. What happens on sockets stands in the tests of `transport`.

use super::*;
use clap::Parser;
use rcgen::{CertifiedKey, generate_simple_self_signed};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    tls: TlsArgs,
}

fn args(words: &[&str]) -> Result<TlsArgs, String> {
    Cli::try_parse_from([&["test"], words].concat()).map(|cli| cli.tls).map_err(|e| e.to_string())
}

fn client(words: &[&str]) -> Result<Client, String> {
    args(words)?.client("a.example")
}

/// Files of a folder of their own, removed when dropped.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let path = std::env::temp_dir().join(format!("framegate-loadtest-tls-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Files(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn names_and_addresses_are_names() {
    let named = |host: &str, sni: &[&str]| args(&[&["--insecure"], sni].concat()).unwrap().client(host);
    assert_eq!(named("a.example", &[]).unwrap().name.to_str(), "a.example");
    assert_eq!(named("::1", &[]).unwrap().name.to_str(), "::1");
    assert_eq!(named("127.0.0.1", &["--sni", "b.example"]).unwrap().name.to_str(), "b.example");
    assert!(named("a.example", &["--sni", "a b"]).unwrap_err().contains("\"a b\" is not a valid server name"));
    assert!(named("a.example", &["--sni", ""]).unwrap_err().contains("is not a valid server name"));
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    for (words, says) in [
        (&["--tls-version", "1.1"][..], "1.1"),
        (&["--insecure", "--ca", "x"], "cannot be used with"),
        (&["--cert", "x"], "--key"),
        (&["--key", "x"], "--cert"),
        (&["--insecure", "--alpn", "h2"], "only HTTP/1.1"),
        (&["--insecure", "--alpn", ","], "1 to 255 bytes"),
    ] {
        let error = client(words).unwrap_err();
        assert!(error.contains(says), "{words:?}: {error}");
    }
    let config = client(&["--insecure", "--alpn", "http/1.1,x"]).unwrap().config;
    assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec(), b"x".to_vec()]);
}

#[test]
fn files_that_do_not_fit_are_named() {
    let files = Files::new("files");
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["a.example".into()]).unwrap();
    let other = generate_simple_self_signed(vec!["b.example".into()]).unwrap();
    let cert = files.write("cert.pem", &cert.pem());
    let key = files.write("key.pem", &signing_key.serialize_pem());
    let other_key = files.write("other.pem", &other.signing_key.serialize_pem());
    let empty = files.write("empty.pem", "nothing here\n");
    let broken = files.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let not_one = files.write("not-one.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = files.0.join("missing.pem").display().to_string();
    assert!(client(&["--ca", &cert]).is_ok());
    assert!(client(&["--ca", &cert, "--cert", &cert, "--key", &key]).is_ok());
    for (words, says) in [
        (&["--ca", &missing][..], "--ca: cannot read"),
        (&["--ca", &empty], "no PEM certificate"),
        (&["--ca", &key], "no PEM certificate"),
        (&["--ca", &broken], "not valid PEM"),
        (&["--ca", &not_one], "trust anchor"),
        (&["--ca", &cert, "--cert", &missing, "--key", &key], "--cert: cannot read"),
        (&["--ca", &cert, "--cert", &cert, "--key", &missing], "--key: cannot read"),
        (&["--ca", &cert, "--cert", &cert, "--key", &cert], "no PEM private key"),
        (&["--ca", &cert, "--cert", &cert, "--key", &other_key], "does not match"),
    ] {
        let error = client(words).unwrap_err();
        assert!(error.contains(says), "{words:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
