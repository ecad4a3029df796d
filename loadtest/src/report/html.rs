//! One page that needs nothing else: no script, no network. Plots and the report's text.

/// `plots` are SVG documents of ours; everything else is escaped.
pub fn page(title: &str, plots: &[String], text: &str) -> String {
    let title = escaped(title);
    let figures: String = plots.iter().map(|svg| format!("<figure>{svg}</figure>\n")).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <main>\n<h1>{title}</h1>\n{figures}<pre>{}</pre>\n</main>\n</html>\n",
        escaped(text)
    )
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem; font-weight: 600; overflow-wrap: anywhere }
figure { margin: 1rem 0; background: #fff; border: 1px solid #8884; border-radius: 6px }
figure svg { display: block; width: 100%; height: auto }
pre { overflow-x: auto; font: 13px/1.45 ui-monospace, monospace; padding: 1rem; border: 1px solid #8884; border-radius: 6px }
";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn what_was_typed_is_escaped() {
        let page = page("<b>&", &["<svg/>".into()], "a < b");
        assert!(page.contains("<h1>&lt;b&gt;&amp;</h1>") && page.contains("<figure><svg/></figure>"));
        assert!(page.contains("<pre>a &lt; b</pre>") && !page.contains("<script"));
    }
}
