//! The demo page: opens a WebSocket through the proxy and charts round-trip times. Self-contained.

/// The page, connecting to `ws_url`.
pub fn html(ws_url: &str) -> String {
    // Inside a script even a quoted `</script>` would end it.
    let quoted = serde_json::Value::from(ws_url).to_string().replace('<', "\\u003c");
    include_str!("page.html").replace("\"{{WS_URL}}\"", &quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_labels_of_any_width_fit_beside_the_chart() {
        let page = html("ws://x/");
        assert!(page.contains("const left = margin(ticks.map((tick) => pen.measureText(tick.label).width));"));
        assert!(page.contains("Math.max(MARGIN_MIN, Math.ceil(Math.max(...widths)) + LABEL_GAP)"));
        assert!(page.contains("pen.fillText(label, left - LABEL_GAP, y(ms));"));
    }

    #[test]
    fn the_page_is_complete_and_the_url_stays_in_its_string() {
        let page = html("ws://127.0.0.1:8080/");
        assert_eq!(page.matches("\"ws://127.0.0.1:8080/\"").count(), 1);
        assert!(!page.contains("{{"), "a placeholder is left");
        for outside in ["src=", "http://", "https://", "@import", "url(", "<link rel=\"stylesheet"] {
            assert!(!page.contains(outside), "{outside} in the page");
        }
        let hostile = html("ws://x/\"</script><script>");
        assert_eq!(hostile.matches("</script>").count(), 1);
        assert!(hostile.contains(r#""ws://x/\"\u003c/script>\u003cscript>""#));
    }
}
