//! One panel of a picture: axes with ticks and units, and lines.

use std::fmt::Write;

/// A rectangle with two axes.
pub(super) struct Panel {
    /// x, y, width, height.
    pub(super) place: [f64; 4],
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Whether to label the y axis; the panels to the right share its labels.
    pub(super) first: bool,
}

/// What an axis shows.
pub(super) struct Axis {
    name: &'static str,
    low: f64,
    high: f64,
    doubling: bool,
}

/// A line through points.
pub(super) struct Line {
    pub(super) points: Vec<(f64, f64)>,
    pub(super) color: &'static str,
    pub(super) dash: &'static str,
    pub(super) marks: bool,
}

impl Axis {
    /// From 0 to the first tick at or above `high`.
    pub(super) fn linear(name: &'static str, high: f64) -> Self {
        Self::between(name, 0.0, high)
    }

    /// From the tick before `low` to the tick after `high`.
    pub(super) fn between(name: &'static str, low: f64, high: f64) -> Self {
        let step = step((high - low).max(high / 100.0).max(1e-9));
        let low = (low / step + 1e-9).floor().max(0.0) * step;
        let count = ((high - low) / step - 1e-9).ceil().max(1.0);
        Self { name, low, high: low + count * step, doubling: false }
    }

    /// Logarithmic, with ticks at powers of two.
    pub(super) fn doubling(name: &'static str, low: f64, high: f64) -> Self {
        let low = low.max(1e-3);
        Self { name, low, high: high.max(low * 2.0), doubling: true }
    }

    /// The position of `value` on the axis, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = if self.doubling {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.doubling {
            let next = |tick: &f64| Some(tick * 2.0).filter(|tick| *tick <= self.high * 1.001);
            return std::iter::successors(Some(self.low), next).collect();
        }
        let step = step(self.high - self.low);
        let count = ((self.high - self.low) / step).round() as usize;
        (0..=count).map(|tick| self.low + tick as f64 * step).collect()
    }
}

impl Panel {
    /// Ticks, names and grid.
    pub(super) fn frame(&self, body: &mut String) {
        let [x, y, width, height] = self.place;
        let _ = writeln!(
            body,
            "<g class=\"panel\" stroke=\"#ddd\" fill=\"none\"><rect x=\"{x:.1}\" y=\"{y:.1}\" \
             width=\"{width:.1}\" height=\"{height:.1}\" stroke=\"#999\"/>"
        );
        for tick in self.y.ticks() {
            let at = y + height * (1.0 - self.y.share(tick));
            let _ = writeln!(body, "<path d=\"M{x:.1} {at:.1}h{width:.1}\"/>");
        }
        body.push_str("</g>\n");
        if self.first {
            for tick in self.y.ticks() {
                let at = y + height * (1.0 - self.y.share(tick));
                text(body, x - 5.0, at + 3.5, "end", 10.0, &figure(tick));
            }
        }
        text(body, x + 3.0, y - 4.0, "start", 10.5, self.y.name);
        for tick in self.x.ticks() {
            let at = x + width * self.x.share(tick);
            text(body, at, y + height + 12.0, "middle", 10.0, &figure(tick));
        }
        text(body, x + width, y + height + 24.0, "end", 10.0, self.x.name);
    }

    pub(super) fn line(&self, body: &mut String, line: &Line) {
        let [x, y, width, height] = self.place;
        let at = |(px, py): &(f64, f64)| {
            (x + width * self.x.share(*px), y + height * (1.0 - self.y.share(*py)))
        };
        if line.points.is_empty() {
            return;
        }
        let mut path = String::new();
        for (px, py) in line.points.iter().map(at) {
            let _ = write!(path, "{px:.1},{py:.1} ");
        }
        let Line { color, dash, .. } = line;
        let _ = writeln!(
            body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\" \
             stroke-dasharray=\"{dash}\"/>",
            path.trim_end()
        );
        for (px, py) in line.points.iter().filter(|_| line.marks).map(at) {
            let _ = writeln!(
                body,
                "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"2.5\" fill=\"{color}\"/>"
            );
        }
    }
}

/// A piece of text.
pub(super) fn text(body: &mut String, x: f64, y: f64, anchor: &str, size: f64, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{content}</text>"
    );
}

/// The distance between ticks: 1, 2 or 5 times a power of ten, giving three to six ticks.
fn step(high: f64) -> f64 {
    let rough = (high / 5.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(power * 10.0)
}

fn figure(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if value >= 10_000.0 { format!("{}k", figure(value / 1_000.0)) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_largest_value() {
        for high in [0.07, 1.0, 3.3, 47.0, 100.0, 4_044.0, 98_765.0] {
            let axis = Axis::linear("x", high);
            let ticks = axis.ticks();
            assert!((3..=7).contains(&ticks.len()), "{high}: {ticks:?}");
            assert!(ticks.last().is_some_and(|last| *last >= high * 0.999), "{high}: {ticks:?}");
        }
        assert_eq!(Axis::linear("x", 100.0).ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(Axis::between("x", 61.5, 74.0).ticks(), [60.0, 65.0, 70.0, 75.0]);
        assert_eq!(Axis::doubling("x", 0.5, 4.0).ticks(), [0.5, 1.0, 2.0, 4.0]);
    }

    #[test]
    fn figures_are_short() {
        let shown = [0.0, 0.25, 4.0, 20.0, 1_000.0, 20_000.0].map(figure);
        assert_eq!(shown, ["0", "0.25", "4", "20", "1000", "20k"]);
    }
}
