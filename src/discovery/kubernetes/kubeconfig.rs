//! A kubeconfig: the current context, with its cluster and user. Pure, but for the files that it
//! names.
//!
//! <https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/>

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::path::{Path, PathBuf};

/// What the current context says.
#[derive(Debug, PartialEq, Eq)]
pub struct Access {
    pub server: String,
    pub namespace: Option<String>,
    /// PEM. `None`: the system's.
    pub ca: Option<Data>,
    pub token: Option<Token>,
    /// Certificate and key, in PEM.
    pub client: Option<(Data, Data)>,
}

/// In the file, or in another one.
#[derive(PartialEq, Eq)]
pub enum Data {
    Inline(Vec<u8>),
    File(PathBuf),
}

#[derive(PartialEq, Eq)]
pub enum Token {
    Value(String),
    File(PathBuf),
}

/// Neither shows a secret.
impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Data::Inline(_) => f.write_str("Inline"),
            Data::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Value(_) => f.write_str("Value"),
            Token::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    current_context: Option<String>,
    #[serde(default)]
    contexts: Vec<NamedPair>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(serde::Deserialize)]
struct NamedPair {
    name: String,
    context: Pair,
}

#[derive(serde::Deserialize)]
struct Pair {
    cluster: String,
    #[serde(default)]
    user: String,
    namespace: Option<String>,
}

#[derive(serde::Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(serde::Deserialize)]
struct NamedUser {
    name: String,
    user: Option<User>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

/// Reads a kubeconfig. Paths in it are relative to `folder`, where it is.
pub fn parse(text: &str, folder: &Path) -> Result<Access, String> {
    // Its message would quote the line, which may have a token.
    let config: Config = serde_saphyr::from_str(text).map_err(|_| "is not a kubeconfig".to_owned())?;
    let name = config.current_context.filter(|name| !name.is_empty()).ok_or("has no current-context")?;
    let context = config.contexts.into_iter().find(|one| one.name == name);
    let context = context.ok_or_else(|| format!("has no context {name}"))?.context;
    let cluster = config.clusters.into_iter().find(|one| one.name == context.cluster);
    let cluster = cluster.ok_or_else(|| format!("has no cluster {}", context.cluster))?.cluster;
    let user = match context.user.as_str() {
        "" => User::default(),
        name => {
            let user = config.users.into_iter().find(|one| one.name == name);
            user.ok_or_else(|| format!("has no user {name}"))?.user.unwrap_or_default()
        }
    };
    if cluster.insecure_skip_tls_verify {
        return Err("skips the verification of the server, which is not supported; name its CA".to_owned());
    }
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err("runs a program for a token, which is not supported; use a token or a certificate".to_owned());
    }
    let data = |inline: Option<String>, file: Option<PathBuf>| -> Result<Option<Data>, String> {
        let inline = inline.map(|text| decode(&text).map(Data::Inline)).transpose()?;
        Ok(inline.or(file.map(|path| Data::File(folder.join(path)))))
    };
    let certificate = data(user.client_certificate_data, user.client_certificate)?;
    let key = data(user.client_key_data, user.client_key)?;
    if certificate.is_some() != key.is_some() {
        return Err("has a client certificate or its key, but not both".to_owned());
    }
    let file = user.token_file.map(|path| Token::File(folder.join(path)));
    Ok(Access {
        server: cluster.server.trim_end_matches('/').to_owned(),
        namespace: context.namespace.filter(|namespace| !namespace.is_empty()),
        ca: data(cluster.certificate_authority_data, cluster.certificate_authority)?,
        // The file wins, as in client-go.
        token: file.or(user.token.map(Token::Value)),
        client: certificate.zip(key),
    })
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let packed: String = text.split_whitespace().collect();
    BASE64_STANDARD.decode(packed).map_err(|_| "has data that is not base64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
apiVersion: v1
kind: Config
preferences: {}
current-context: "dev"
contexts:
- name: prod
  context: {cluster: prod, user: admin}
- context:
    cluster: dev
    namespace: chat
    user: robot
  name: dev
clusters:
- cluster:
    certificate-authority-data: LS0tLS1C
    server: https://10.0.0.1:6443/
  name: dev
- cluster:
    certificate-authority: pki/ca.crt
    server: https://prod:6443
    extensions: [{name: x, extension: {last-update: "now"}}]
  name: prod
users:
- name: admin
  user:
    client-certificate: /etc/admin.crt
    client-key-data: |
      S0VZ
- name: robot
  user:
    token: sesame
"#;

    fn parsed(text: &str) -> Result<Access, String> {
        parse(text, Path::new("/etc/kube"))
    }

    #[test]
    fn current_context_is_followed() {
        let dev = parsed(CONFIG).unwrap();
        assert_eq!((dev.server.as_str(), dev.namespace.as_deref()), ("https://10.0.0.1:6443", Some("chat")));
        assert_eq!((&dev.ca, &dev.client), (&Some(Data::Inline(b"-----B".to_vec())), &None));
        assert_eq!(dev.token, Some(Token::Value("sesame".into())));
        assert!(!format!("{dev:?}").contains("sesame"), "secrets are not shown");
        let prod = parsed(&CONFIG.replace("\"dev\"", "prod")).unwrap();
        assert_eq!(prod.ca, Some(Data::File("/etc/kube/pki/ca.crt".into())));
        assert_eq!(prod.client, Some((Data::File("/etc/admin.crt".into()), Data::Inline(b"KEY".to_vec()))));
        assert_eq!((prod.namespace, prod.token), (None, None));
        let file = parsed(&CONFIG.replace("token: sesame", "{token: sesame, tokenFile: token}")).unwrap();
        assert_eq!(file.token, Some(Token::File("/etc/kube/token".into())));
    }

    #[test]
    fn what_is_missing_or_not_supported_is_named() {
        for (from, to, why) in [
            ("current-context: \"dev\"", "", "current-context"),
            ("current-context: \"dev\"", "current-context: other", "context other"),
            ("cluster: dev", "cluster: other", "cluster other"),
            ("user: robot", "user: other", "user other"),
            ("token: sesame", "exec: {command: aws}", "runs a program"),
            ("token: sesame", "client-key: x", "not both"),
            ("LS0tLS1C", "\"***\"", "base64"),
            ("server: https://10.0.0.1:6443/", "{server: x, insecure-skip-tls-verify: true}", "not supported"),
            ("contexts:", "contexts: [sesame", "not a kubeconfig"),
        ] {
            let text = CONFIG.replacen(from, to, 1);
            assert_ne!(text, CONFIG);
            // Where the cluster is one line, the rest of it is not there.
            let text = text.replace("    certificate-authority-data: LS0tLS1C\n    {", "    {");
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(why) && !error.contains("sesame"), "{to}: {error}");
        }
    }
}
