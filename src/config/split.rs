//! A route over several upstreams: `split = [{ upstream = "a", weight = 9 }, ...]`.

use super::build::Builder;
use super::file::{Route, Section};
use super::routes::{Destination, destination};
use super::upstreams::hash_key;
use super::value::{self, Parsed, quoted};
use crate::policy::route::{RouteAction, Split};
use crate::policy::upstream::Upstream;
use std::ops::RangeInclusive;
use std::sync::Arc;
use toml::{Spanned, Value};

const WEIGHT: RangeInclusive<u64> = 0..=1_000_000;
const PARTS_MAX: usize = 64;

impl Builder<'_, '_> {
    /// `None` if there is no split, or it is not valid.
    pub fn split(&mut self, section: &Section<Route>, upstreams: &mut Vec<Arc<Upstream>>) -> Option<RouteAction> {
        let typed = section.get_ref();
        let key = self.read("route.split_key", &typed.split_key, hash_key);
        let Some(list) = &typed.split else {
            if let Some(key) = &typed.split_key {
                self.problems.add(key.span(), "route.split_key", "nothing to choose; add split = [...]");
            }
            return None;
        };
        if let Some(upstream) = &typed.upstream {
            self.problems.add(upstream.span(), "route.upstream", "conflicts with split; remove one of the two");
        }
        let mut parts: Vec<(Arc<Upstream>, u32)> = Vec::new();
        for element in list.get_ref() {
            let Some((destination, weight)) = self.part(element, upstreams) else { continue };
            let upstream = self.upstream_for(destination, upstreams);
            if parts.iter().any(|(known, _)| Arc::ptr_eq(known, &upstream)) {
                let why = format!("{} is listed twice; add up the weights", quoted(&upstream.name));
                self.problems.add(element.span(), "route.split", &why);
            }
            parts.push((upstream, weight));
        }
        let none = parts.iter().all(|(_, weight)| *weight == 0);
        if (none && parts.len() == list.get_ref().len()) || parts.len() > PARTS_MAX {
            let why = format!(
                "expected 1 to {PARTS_MAX} parts with a weight, for example \
                               [{{ upstream = \"a\", weight = 9 }}, {{ upstream = \"b\", weight = 1 }}]"
            );
            self.problems.add(list.span(), "route.split", &why);
        }
        Split::new(parts, key).map(RouteAction::Split)
    }

    fn part(&mut self, element: &Spanned<Value>, upstreams: &[Arc<Upstream>]) -> Option<(Destination, u32)> {
        part(element.get_ref(), upstreams).map_err(|e| self.problems.add(element.span(), "route.split", &e)).ok()
    }
}

fn part(value: &Value, upstreams: &[Arc<Upstream>]) -> Parsed<(Destination, u32)> {
    let right = "expected for example { upstream = \"app\", weight = 9 }";
    let table = value.as_table().ok_or_else(|| format!("{} is not a part of a split; {right}", value::shown(value)))?;
    value::only_keys(table, &["upstream", "weight"])?;
    let (Some(upstream), Some(weight)) = (table.get("upstream"), table.get("weight")) else {
        return Err(format!("has no upstream or no weight; {right}"));
    };
    let weight = value::number(weight, WEIGHT).map_err(|e| format!("weight: {e}"))?;
    Ok((destination(upstream, upstreams)?, weight as u32))
}
