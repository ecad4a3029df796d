//! The store in Redis: one server or a cluster, with or without TLS. A batch is one call of
//! `script.lua`. The only file that names the client of Redis.

use super::exchange::{Answer, Store};
use crate::config;
use crate::policy::keyed::{KeyId, Usage};
use crate::text;
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ConnectionLike, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    Script, TlsCertificates, Value,
};
use std::sync::Arc;
use std::time::Duration;

/// Keys of one group are in one slot of a cluster, so that a batch can be one call.
const GROUPS: u8 = 64;
/// Of a command to a cluster: one to follow a slot that has moved.
const RETRIES: u32 = 1;

pub struct RedisStore {
    config: Arc<config::Redis>,
    script: Script,
    /// `None` after a failure.
    connection: Option<Box<dyn ConnectionLike + Send>>,
}

impl RedisStore {
    pub fn new(config: Arc<config::Redis>) -> RedisStore {
        RedisStore { config, script: Script::new(include_str!("script.lua")), connection: None }
    }

    /// Each step within the timeout.
    fn connect(&self) -> Result<Box<dyn ConnectionLike + Send>, RedisError> {
        let timeout = Duration::from_millis(self.config.timeout_ms);
        let ca = self.config.ca.as_ref().map(std::fs::read).transpose()?;
        let certificates = TlsCertificates { client_tls: None, root_cert: ca };
        let nodes = self.config.servers.iter().map(|server| self.address(server));
        let nodes = nodes.collect::<Result<Vec<ConnectionInfo>, _>>()?;
        if self.config.cluster {
            let mut builder = ClusterClient::builder(nodes);
            builder = builder.connection_timeout(timeout).response_timeout(timeout).retries(RETRIES);
            builder = builder.min_retry_wait(1).max_retry_wait(10);
            if self.config.ca.is_some() {
                builder = builder.certs(certificates);
            }
            let connection: ClusterConnection = builder.build()?.get_connection()?;
            connection.set_write_timeout(Some(timeout))?;
            return Ok(Box::new(connection));
        }
        let Some(node) = nodes.into_iter().next() else {
            return Err(RedisError::from(std::io::Error::other("no server is configured")));
        };
        let client = match self.config.ca {
            Some(_) => Client::build_with_tls(node, certificates)?,
            None => Client::open(node)?,
        };
        let connection = client.get_connection_with_timeout(timeout)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(Box::new(connection))
    }

    fn address(&self, server: &config::RedisServer) -> Result<ConnectionInfo, RedisError> {
        let (host, port) = (server.host.clone(), server.port);
        let address = match server.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        let mut settings = RedisConnectionInfo::default().set_db(i64::from(server.database));
        if let Some(username) = &self.config.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.config.password {
            settings = settings.set_password(&password.0);
        }
        Ok(address.into_connection_info()?.set_redis_settings(settings))
    }

    fn try_exchange(
        &mut self,
        host: &str,
        batch: &[(KeyId, Usage)],
    ) -> Result<Vec<Result<Answer, String>>, RedisError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        if batch.is_empty() {
            redis::cmd("PING").query::<Value>(connection.as_mut())?;
            self.connection = Some(connection);
            return Ok(Vec::new());
        }
        let mut call = self.script.prepare_invoke();
        call.arg(host).arg(self.config.host_timeout_ms);
        for (id, usage) in batch {
            call.key(self.key(id)).arg(usage.sessions).arg(usage.owed_us);
        }
        let answers: Value = call.invoke(connection.as_mut())?;
        self.connection = Some(connection);
        match answers {
            Value::Array(answers) => Ok(answers.into_iter().map(answer).collect()),
            _ => Ok(Vec::new()),
        }
    }

    fn key(&self, id: &KeyId) -> String {
        format!("{}:{{{}}}:{}", self.config.namespace, self.group(id), text::hex(id))
    }
}

impl Store for RedisStore {
    fn exchange(&mut self, host: &str, batch: &[(KeyId, Usage)]) -> Result<Vec<Result<Answer, String>>, String> {
        self.try_exchange(host, batch).map_err(|error| match error.is_timeout() {
            true => format!("no answer within {} ms", self.config.timeout_ms),
            false => error.to_string(),
        })
    }

    fn group(&self, id: &KeyId) -> u8 {
        let [first, ..] = *id;
        if self.config.cluster { first % GROUPS } else { 0 }
    }
}

fn answer(value: Value) -> Result<Answer, String> {
    if let Value::Array(numbers) = &value
        && let [Value::Int(others), Value::Int(full_in_us)] = numbers[..]
        && let (Ok(others), Ok(full_in_us)) = (u64::try_from(others), u64::try_from(full_in_us))
    {
        return Ok(Answer { others, full_in_us });
    }
    match value {
        Value::BulkString(why) => Err(String::from_utf8_lossy(&why).into_owned()),
        _ => Err("an answer of another form".to_owned()),
    }
}
