//! In a build without the feature `jwt`: there are no keys, and so no tokens. The configuration
//! refuses methods with tokens before it reads their keys.

use super::algorithm::{Algorithm, KeyType};
use serde_json::Value;
use std::convert::Infallible;

#[derive(PartialEq, Eq)]
pub struct Material(Infallible);

const ABSENT: &str = "cannot be read: this build has no JSON Web Tokens (feature \"jwt\")";

impl Material {
    pub fn pem(_: &[u8]) -> Result<Material, String> {
        Err(ABSENT.to_owned())
    }

    pub fn secret(_: &[u8]) -> Result<Material, String> {
        Err(ABSENT.to_owned())
    }

    pub fn jwk(_: &Value) -> Result<Option<Material>, String> {
        Err(ABSENT.to_owned())
    }

    pub fn key_type(&self) -> KeyType {
        match self.0 {}
    }

    pub fn what(&self) -> String {
        match self.0 {}
    }

    pub fn verifies(&self, _: &[u8], _: &str, _: Algorithm) -> bool {
        match self.0 {}
    }
}
