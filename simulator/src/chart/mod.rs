//! Draws runs as SVG: their figures over time, and the trade-off of `max_wait`.

mod panel;

use std::fmt::Write;

use self::panel::{Axis, Line, Panel, text};
use super::{Policy, SimReport, Slot};

/// How one policy does under one load as `max_wait` varies.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The policy.
    pub policy: Policy,
    /// `max_wait` in seconds, the share of tokens that spilled, and the 99th percentile of the
    /// added latency in milliseconds.
    pub points: Vec<(f64, f64, f64)>,
}

type Point = (f64, f64, f64);

/// Draws queue, level, spill and latency over time, with a column for each report, and the curves
/// below them. `title` describes the simulation.
pub fn svg(title: &str, reports: &[SimReport], curves: &[Curve]) -> String {
    let columns = reports.len().max(1) as f64;
    let width = (INNER / columns - GAP).max(NARROWEST);
    let total = LEFT + columns * (width + GAP);
    let mut body = String::new();
    text(&mut body, LEFT, 24.0, "start", 13.0, title);
    for (column, report) in reports.iter().enumerate() {
        let x = LEFT + column as f64 * (width + GAP);
        body.push_str("<g font-weight=\"bold\">\n");
        text(&mut body, x, TOP - 16.0, "start", 13.0, report.policy.name());
        body.push_str("</g>\n");
        for (row, metric) in METRICS.iter().enumerate() {
            let y = TOP + row as f64 * (HEIGHT + ROW_GAP);
            metric.draw(&mut body, report, reports, column == 0, [x, y, width]);
        }
    }
    let mut bottom = TOP + METRICS.len() as f64 * (HEIGHT + ROW_GAP);
    if curves.iter().any(|curve| curve.points.len() > 1) {
        draw_curves(&mut body, curves, bottom + 40.0, total);
        bottom += 40.0 + CURVE_HEIGHT + 60.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total:.0} {bottom:.0}\" \
         width=\"{total:.0}\" height=\"{bottom:.0}\" font-family=\"Helvetica, Arial, sans-serif\" \
         fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// One row of the picture.
struct Metric {
    name: &'static str,
    /// The figure, and a second one to draw faintly behind it.
    of: fn(&Slot) -> (f64, Option<f64>),
    /// The minimum upper end of the axis.
    least: f64,
}

impl Metric {
    fn draw(
        &self,
        body: &mut String,
        report: &SimReport,
        all: &[SimReport],
        first: bool,
        [x, y, width]: [f64; 3],
    ) {
        // One scale for all policies, so that columns can be compared.
        let slots = || all.iter().flat_map(|report| &report.slots);
        let figures = slots().map(|slot| (self.of)(slot).0).fold(self.least, f64::max);
        let top = figures.max(most(slots().filter_map(|slot| (self.of)(slot).1)));
        let minutes = slots().map(|slot| slot.at / 60.0).fold(0.1, f64::max);
        let panel = Panel {
            place: [x, y, width, HEIGHT],
            x: Axis::linear("minutes", minutes),
            y: Axis::linear(self.name, top),
            first,
        };
        panel.frame(body);
        let points = |figure: fn(&Self, &Slot) -> Option<f64>| -> Vec<(f64, f64)> {
            let point = |slot: &Slot| Some((slot.at / 60.0, figure(self, slot)?));
            report.slots.iter().filter_map(point).collect()
        };
        let behind = points(|metric, slot| (metric.of)(slot).1);
        panel.line(body, &Line { points: behind, color: "#bbb", dash: "", marks: false });
        let color = color(report.policy).0;
        let figures = points(|metric, slot| Some((metric.of)(slot).0));
        panel.line(body, &Line { points: figures, color, dash: "", marks: false });
    }
}

/// The 99th percentile of the values: cuts off rare spikes, so that the rest stays readable.
fn most(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 99 / 100).copied().unwrap_or(0.0)
}

/// Two panels side by side, then their shared legend.
fn draw_curves(body: &mut String, curves: &[Curve], y: f64, total: f64) {
    let width = ((total - LEFT) / 2.0 - 135.0).clamp(260.0, 520.0);
    let column = |column: f64| LEFT + column * (width + 80.0);
    text(body, LEFT, y - 24.0, "start", 14.0, "Choosing max_wait");
    let place = |x: f64| [x, y, width, CURVE_HEIGHT];
    draw_curve(body, curves, place(column(0.0)), "spilled tokens, %", |point| point.1 * 100.0);
    draw_curve(body, curves, place(column(1.0)), "added latency p99, ms", |point| point.2);
    legend(body, curves, column(2.0) - 50.0, y + 14.0);
}

fn draw_curve(
    body: &mut String,
    curves: &[Curve],
    place: [f64; 4],
    name: &'static str,
    of: impl Fn(&Point) -> f64,
) {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let range = |of: &dyn Fn(&Point) -> f64| {
        (points().map(of).fold(f64::INFINITY, f64::min), points().map(of).fold(0.1, f64::max))
    };
    let ((shortest, longest), (least, most)) = (range(&|point| point.0), range(&of));
    let x = Axis::doubling("max_wait, seconds", shortest, longest);
    let panel = Panel { place, x, y: Axis::between(name, least, most), first: true };
    panel.frame(body);
    for curve in curves {
        let points = curve.points.iter().map(|point| (point.0, of(point))).collect();
        let (color, dash) = color(curve.policy);
        panel.line(body, &Line { points, color, dash, marks: true });
    }
}

fn legend(body: &mut String, curves: &[Curve], x: f64, mut y: f64) {
    for curve in curves {
        let (color, dash) = color(curve.policy);
        let _ = writeln!(
            body,
            "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{color}\" \
             stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
            x + 28.0
        );
        text(body, x + 34.0, y + 4.0, "start", 12.0, curve.policy.name());
        y += 20.0;
    }
}

/// Okabe and Ito's colours, which most readers can distinguish, and dashes for the other policies.
const fn color(policy: Policy) -> (&'static str, &'static str) {
    match policy {
        Policy::SpillFirst => ("#cc79a7", "2 3"),
        Policy::Reference => ("#d55e00", "8 3"),
        Policy::RegionChain => ("#a08000", "2 3"),
        Policy::Shared => ("#e69f00", "8 3 2 3"),
        Policy::Gate => ("#0072b2", ""),
        Policy::GateStanding => ("#009e73", ""),
        Policy::GateCompete => ("#56b4e9", ""),
        Policy::Oracle => ("#000000", "4 2"),
        Policy::OracleStanding => ("#666666", "4 2"),
    }
}

const METRICS: [Metric; 4] = [
    Metric { name: "queue, requests", of: |slot| (slot.queue, None), least: 1.0 },
    Metric { name: "PTU level, %", of: |slot| (slot.level * 100.0, None), least: 100.0 },
    Metric { name: "spilled, %", of: spilled, least: 1.0 },
    Metric {
        name: "added, ms (grey: worst)",
        of: |slot| (slot.added, Some(slot.worst)),
        least: 50.0,
    },
];

fn spilled(slot: &Slot) -> (f64, Option<f64>) {
    (slot.spilled as f64 / (slot.arrived as f64).max(1.0) * 100.0, None)
}

const LEFT: f64 = 64.0;
const TOP: f64 = 64.0;
/// The width shared by all columns.
const INNER: f64 = 1_240.0;
const NARROWEST: f64 = 200.0;
const GAP: f64 = 18.0;
const HEIGHT: f64 = 110.0;
const ROW_GAP: f64 = 44.0;
const CURVE_HEIGHT: f64 = 220.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Load, Simulation};

    #[test]
    fn a_picture_has_a_panel_for_each_metric_and_policy_and_its_curves() {
        let simulation =
            Simulation::new(Load::Bursty { rate: 5.0 }).length(Duration::from_secs(60));
        let run = |policy| simulation.run(policy).expect("settings that work");
        let reports = [run(Policy::Oracle), run(Policy::OracleStanding)];
        let curves = [Curve {
            policy: Policy::Oracle,
            points: vec![(1.0, 0.2, 900.0), (2.0, 0.1, 1_900.0), (4.0, 0.0, 3_900.0)],
        }];
        let picture = svg("a & <b>", &reports, &curves);
        assert_eq!(picture.matches("<g class=\"panel\"").count(), 2 * 4 + 2);
        assert!(picture.contains("max_wait, seconds") && picture.contains("a &amp; &lt;b>"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "every figure is finite");
        assert_eq!(picture.matches("<g").count(), picture.matches("</g>").count());
    }

    #[test]
    fn nothing_to_draw_is_still_a_picture() {
        assert!(svg("empty", &[], &[]).ends_with("</svg>\n"));
    }
}
