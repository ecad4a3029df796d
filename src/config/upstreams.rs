//! Upstreams: `[[upstream]]`.

use super::build::Builder;
use super::endpoint;
use super::file::{self, Section};
use super::value::{self, quoted, text};
use crate::policy::upstream::{Balance, Upstream};
use std::sync::Arc;
use toml::Spanned;

impl Builder<'_, '_> {
    pub fn upstreams(&mut self, typed: &[Section<file::Upstream>]) -> Vec<Arc<Upstream>> {
        let mut upstreams: Vec<Arc<Upstream>> = Vec::new();
        for section in typed {
            let one = section.get_ref();
            let endpoints = self.list("upstream.endpoints", &one.endpoints, |v| endpoint::endpoint(text(v)?));
            if one.endpoints.as_ref().is_none_or(|list| list.get_ref().is_empty()) {
                let at = one.endpoints.as_ref().map_or(section.span(), Spanned::span);
                let why = "missing; add for example endpoints = [\"ws://10.0.0.1:9000\"]";
                self.problems.add(at, "upstream.endpoints", why);
            }
            let balances = Balance::ALL.map(|balance| (balance.name(), balance));
            let balance =
                self.take("upstream.balance", &one.balance, Balance::default(), |v| value::word(v, &balances));
            let name = match &one.name {
                None => {
                    let why = "missing; add the name that routes use, for example name = \"app\"";
                    self.problems.add(section.span(), "upstream.name", why);
                    continue;
                }
                Some(_) => self.take("upstream.name", &one.name, String::new(), value::name),
            };
            if let (true, Some(at)) = (!name.is_empty() && upstreams.iter().any(|other| other.name == name), &one.name)
            {
                let why = format!("{} is the name of another upstream; choose another", quoted(&name));
                self.problems.add(at.span(), "upstream.name", &why);
            }
            let tls = self.upstream_tls(&one.tls, section.span());
            upstreams.push(Arc::new(Upstream::new(name, endpoints).with(balance, tls)));
        }
        upstreams
    }
}
