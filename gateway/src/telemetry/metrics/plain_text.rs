//! Converts OpenMetrics text to Prometheus' text format 0.0.4.

/// The same metrics in the older format: a counter has the name of its samples, and there are no
/// units and no end mark.
pub(crate) fn of(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        let described = line.strip_prefix("# ").and_then(|rest| {
            let (what, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((what, name, rest))
        });
        match described {
            // A metric's type follows its help, and determines the name of both.
            Some(("HELP", _, words)) => help = Some(words),
            Some(("TYPE", name, kind)) => {
                let suffix = if kind == "counter" { "_total" } else { "" };
                if let Some(help) = help.take() {
                    text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
                }
                text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
            }
            _ if line.starts_with('#') => {}
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_counter_is_called_what_its_samples_are_and_units_and_the_end_are_left_out() {
        let openmetrics = "# HELP a_requests Requests, by who.\n# TYPE a_requests counter\n\
            a_requests_total{by=\"# HELP\"} 1\n# HELP a_wait_seconds Waits.\n\
            # TYPE a_wait_seconds histogram\n# UNIT a_wait_seconds seconds\n\
            a_wait_seconds_sum 0.5\n# EOF\n";
        let text = "# HELP a_requests_total Requests, by who.\n# TYPE a_requests_total counter\n\
            a_requests_total{by=\"# HELP\"} 1\n# HELP a_wait_seconds Waits.\n\
            # TYPE a_wait_seconds histogram\na_wait_seconds_sum 0.5\n";
        assert_eq!(super::of(openmetrics), text);
    }
}
