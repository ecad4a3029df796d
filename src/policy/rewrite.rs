//! The path that is sent upstream.

use super::path::{after_segments, decoded, is_under, without_dots};
use super::route::Route;
use std::borrow::Cow;

impl Route {
    /// The path (without query) to send to `endpoint_base` (the endpoint's own path, `""` or
    /// `/base`): the client's bytes, but for the rewrite. Always begins with a slash, and stays
    /// below `endpoint_base`.
    ///
    /// - Nothing is stripped and there is no base: the client's bytes, whatever they are.
    /// - Else, if the path holds no dot segment, its segments are those of the normalised copy one
    ///   by one, however they are encoded: the first ones are cut off, the base goes in front, the
    ///   rest are the client's bytes.
    /// - Else the rest comes from the normalised copy. With dot segments, what the client's bytes
    ///   mean below another base depends on who resolves them: `/a//../../x` is `/x` by RFC 3986,
    ///   but climbs out of `/base` at a server that merges slashes first.
    /// - Slashes at the start are made one where the prefix was removed and no base is put in
    ///   front: `//host/x` as a target can be read as an authority.
    pub fn rewrite<'a>(&self, endpoint_base: &str, path: &'a str) -> Cow<'a, str> {
        let decoded = decoded(path);
        let normal = without_dots(&decoded);
        let prefix = self.strip_prefix.as_deref().unwrap_or_default();
        let strips = !prefix.is_empty() && is_under(&normal, prefix);
        if !strips && endpoint_base.is_empty() {
            return if path.starts_with('/') { path.into() } else { normal.into_owned().into() };
        }
        let source = if decoded == normal { path } else { &normal };
        let rest = if strips { after_segments(source, prefix.matches('/').count()) } else { source };
        match endpoint_base {
            "" => format!("/{}", rest.trim_start_matches('/')),
            base => format!("{base}{rest}"),
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path::normal_path;
    use crate::policy::upstream::Upstream;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn route(strip_prefix: Option<&str>) -> Route {
        let upstream = Arc::new(Upstream::new("app".into(), Vec::new()));
        Route { strip_prefix: strip_prefix.map(str::to_owned), ..Route::new("r".into(), upstream) }
    }

    #[test]
    fn the_rewrite_keeps_the_clients_bytes() {
        for (strip, base, path, sent) in [
            (None, "", "/a%2fb/%7E//c", "/a%2fb/%7E//c"),
            (None, "", "/a/../b", "/a/../b"),
            (None, "", "//host/x", "//host/x"),
            (None, "", "", "/"),
            (None, "", "*", "/*"),
            (None, "/base", "/a%2fb/%7E//c", "/base/a%2fb/%7E//c"),
            (None, "/base", "/", "/base/"),
            (None, "/base", "//x", "/base//x"),
            (None, "/base", "/a//../../x", "/base/x"),
            (None, "/base", "/../x", "/base/x"),
            (None, "/base", "/%2e%2e/x", "/base/x"),
            (None, "/base", "x", "/base/x"),
            (Some("/live"), "", "/live/x%7E", "/x%7E"),
            (Some("/live"), "", "/%6Cive/x%7E", "/x%7E"),
            (Some("/live"), "", "/live", "/"),
            (Some("/live"), "", "/live/", "/"),
            (Some("/live"), "", "/live//host/x", "/host/x"),
            (Some("/live"), "", "/livelier", "/livelier"),
            (Some("/live"), "", "/live%2Fx", "/live%2Fx"),
            (Some("/live"), "", "//live/x", "//live/x"),
            (Some("/live"), "", "/x/../y", "/x/../y"),
            (Some("/live"), "", "/a/../live/%7E/../x%2f", "/x%2F"),
            (Some("/live"), "/base", "/live", "/base"),
            (Some("/live"), "/base", "/live/", "/base/"),
            (Some("/live"), "/base", "/live/x", "/base/x"),
            (Some("/live"), "/base", "/live//x", "/base//x"),
            (Some("/live"), "/base", "/live/../x", "/base/x"),
            (Some("/live"), "/base", "/live/x/../../../etc", "/base/etc"),
            (Some("/live"), "/base", "/other", "/base/other"),
            (Some("/live/v1"), "/base", "/%6cive/v%31/%zz", "/base/%zz"),
        ] {
            assert_eq!(route(strip).rewrite(base, path), sent, "{strip:?} {base} {path}");
        }
    }

    /// What a server makes of a path that merges slashes before it resolves dot segments.
    fn merging(path: &str) -> String {
        let mut merged = decoded(path).into_owned();
        while merged.contains("//") {
            merged = merged.replace("//", "/");
        }
        without_dots(&merged).into_owned()
    }

    proptest! {
        #[test]
        fn a_rewritten_path_stays_below_its_base(
            path in "/(/|%2[eE]|\\.|\\.\\./|a|live/|%6cive/){0,12}",
            strip in prop::option::of(Just("/live")),
        ) {
            let route = route(strip);
            let sent = route.rewrite("/base", &path);
            prop_assert!(is_under(&normal_path(&sent), "/base"), "{}", sent);
            prop_assert!(is_under(&merging(&sent), "/base"), "{}", sent);
            let sent = route.rewrite("", &path);
            prop_assert!(sent.starts_with('/'));
            prop_assert!(sent == path || !sent.starts_with("//"), "{}", sent);
        }

        #[test]
        fn stripping_commutes_with_normalising(path in "/(live|%6Cive)(/(a|%2f|%7e|%zz|x\\.y|~){0,3}){0,3}") {
            let sent = route(Some("/live")).rewrite("/base", &path);
            let expected = format!("/base{}", &normal_path(&path)["/live".len()..]);
            prop_assert_eq!(normal_path(&sent), expected);
        }
    }
}
