//! Chooses the text format of the metrics for a scraper.

/// A text format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' own format, which every scraper and `promtool check metrics` read.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// OpenMetrics 0.0.1, the draft that Prometheus 2.5 to 2.34 requested; these metrics are the
    /// same in it.
    OpenMetricsDraft,
}

impl Format {
    /// The content type of this format.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetricsDraft => "application/openmetrics-text; version=0.0.1; charset=utf-8",
        }
    }

    /// The preferred format of an `Accept` header (RFC 9110 section 12.5.1).
    ///
    /// Of equally preferred formats, the first one named wins; for a wildcard or no header at all,
    /// the text format. If the header accepts neither, the answer is the text format too, as in
    /// Prometheus' own libraries: a scraper that can report a mismatch helps more than a 406.
    pub(crate) fn of(accept: Option<&str>) -> Self {
        let mut best = (0.0, Self::Text);
        let ranges: Vec<_> = accept.unwrap_or_default().split(',').filter_map(range).collect();
        let excluded = |format: Self| {
            let own = ranges.iter().filter(|(of, _)| of.is_of(format));
            own.clone().count() > 0 && own.into_iter().all(|(_, quality)| *quality <= 0.0)
        };
        for (of, quality) in &ranges {
            let candidate = match of {
                Range::Only(format) => *format,
                Range::Any if !excluded(Self::Text) => Self::Text,
                Range::Any => Self::OpenMetrics,
                Range::AnyApplication => Self::OpenMetrics,
            };
            // A wildcard does not apply to formats that are named.
            let is_named = ranges.iter().any(|(other, _)| *other == Range::Only(candidate));
            let counts = matches!(of, Range::Only(_)) || !is_named;
            if counts && *quality > best.0 {
                best = (*quality, candidate);
            }
        }
        best.1
    }
}

/// The subject of one part of an `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    Only(Format),
    Any,
    AnyApplication,
}

impl Range {
    fn is_of(self, format: Format) -> bool {
        self == Self::Only(format)
    }
}

/// A media range that matches a format, and its quality.
fn range(text: &str) -> Option<(Range, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (mut version, mut quality) = (None, 1.0);
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "version" => version = Some(value.to_owned()),
            // Ignore an invalid quality.
            "q" => {
                quality = value.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0);
            }
            _ => {}
        }
    }
    let range = match (kind.as_str(), version.as_deref()) {
        ("application/openmetrics-text", None | Some("1.0.0")) => Range::Only(Format::OpenMetrics),
        ("application/openmetrics-text", Some("0.0.1")) => Range::Only(Format::OpenMetricsDraft),
        ("text/plain", None | Some("0.0.4")) => Range::Only(Format::Text),
        ("text/*", _) => Range::Only(Format::Text),
        ("application/*", _) => Range::AnyApplication,
        ("*/*", _) => Range::Any,
        _ => return None,
    };
    Some((range, quality))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_scraper_gets_what_it_likes_most() {
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("text/html, application/xhtml+xml, */*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.4, text/plain;q=0.5", Format::Text),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.4", Format::OpenMetrics),
            ("application/openmetrics-text;q=0, */*", Format::Text),
            ("text/plain;q=0, */*", Format::OpenMetrics),
            ("application/openmetrics-text; version=0.0.1", Format::OpenMetricsDraft),
            ("application/openmetrics-text; version=7.0.0, text/plain;q=0.1", Format::Text),
            ("application/*", Format::OpenMetrics),
            ("application/json", Format::Text),
            ("text/plain;version=1.0.0;q=0.6, text/plain;version=0.0.4;q=0.3", Format::Text),
            (PROMETHEUS_2, Format::OpenMetrics),
            (PROMETHEUS_3, Format::OpenMetrics),
            (",;q=,,", Format::Text),
        ] {
            assert_eq!(Format::of(Some(accept)), format, "{accept}");
        }
        assert_eq!(Format::of(None), Format::Text);
    }

    proptest! {
        #[test]
        fn no_header_panics(accept in "\\PC{0,40}|(text/plain|\\*/\\*|;|,|q=|version=|[0-9.]){0,9}") {
            let _ = Format::of(Some(&accept));
        }
    }

    const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
}
