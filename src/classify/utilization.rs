//! The utilization that a provisioned deployment reports.

use http::{HeaderMap, HeaderName};

use super::number;

/// The level of a PTU as a share of its limit, from the header `azure-openai-deployment-utilization`
/// of an answer: 1.016 for `101.6%`.
///
/// `None` if the header is malformed or missing, as on every answer of a Standard deployment. It may
/// be empty (Azure/azure-openai-benchmark, `oairequester.py`).
pub fn utilization(headers: &HeaderMap) -> Option<f64> {
    let value = headers.get(UTILIZATION)?.as_bytes().trim_ascii();
    let percent = number::parse(value.strip_suffix(b"%").unwrap_or(value))?;
    (0.0..=MAX_PERCENT).contains(&percent).then_some(percent / 100.0)
}

const UTILIZATION: HeaderName = HeaderName::from_static("azure-openai-deployment-utilization");
/// The largest plausible value, in percent.
const MAX_PERCENT: f64 = 1e6;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_percentage_is_a_share() {
        for (value, share) in [
            ("12.5%", Some(0.125)),
            ("150%", Some(1.5)),
            (" 0.0 % ", Some(0.0)),
            ("50", Some(0.5)),
            ("", None),
            ("%", None),
            ("-3%", None),
            ("1e400%", None),
            ("full", None),
        ] {
            let headers = HeaderMap::from_iter([(UTILIZATION, HeaderValue::from_static(value))]);
            assert_eq!(utilization(&headers), share, "{value:?}");
        }
        assert_eq!(utilization(&HeaderMap::new()), None);
    }
}
