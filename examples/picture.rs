//! Draws a burst of requests, as shown in `docs/picture.svg`.
//!
//! `cargo run --example picture > docs/picture.svg`
//!
//! The layers are the real ones, over the emulator, under tokio's paused clock: the picture is the same
//! on every run.

#![expect(clippy::disallowed_methods, reason = "it is a program: its edge is here")]

use std::{error::Error, fmt::Write, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::join_all};
use http::Request;
use http_body_util::{BodyExt, Full};
use spillover_emulator::{Deployment, Emulator, Pace, Ptu, Resource, Standard};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, Served, SmartFallbackLayer, classify::Outcome,
};

/// A request of the burst. Times count from its beginning.
struct Drawn {
    arrived: Duration,
    served: Served,
    ended: Duration,
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn Error>> {
    let pace =
        Pace { first_token: Duration::from_millis(120), per_token: Duration::from_millis(4) };
    let standard =
        |tokens| Deployment::standard("gpt-4o", Standard::tokens_per_minute(tokens)).pace(pace);
    let ptu = Ptu::new(1_500.0).bucket_seconds(1.0);
    let emulator = Emulator::new([
        Resource::new("east").key("key").deployment(Deployment::ptu("gpt-4o", ptu).pace(pace)),
        Resource::new("sweden").key("key").deployment(standard(600)),
        Resource::new("japan").key("key").deployment(standard(60_000)),
    ]);
    let backend = |name: &str, resource: &str| {
        Backend::new(name, format!("https://{resource}.openai.azure.com"))
            .map(|it| it.api_key("key"))
    };
    let ptu = BackendPool::new([backend("ptu-east", "east")?])?;
    let regions =
        BackendPool::new([backend("sweden", "sweden")?, backend("japan", "japan")?.priority(2)])?;
    let azure =
        SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(regions))
            .max_wait(Duration::from_millis(700))
            .layer(emulator.service());

    let begun = Instant::now();
    // Twelve requests before it, one after another; the gate learns the rate from their refusals.
    for index in 0..12 {
        ask(azure.clone(), begun, Duration::from_millis(250) * index).await?;
    }
    let begun = Instant::now() + Duration::from_secs(5);
    let burst = (0..12)
        .map(|index| ask(azure.clone(), begun, Duration::from_millis(60) * index).boxed_local());
    let burst: Vec<Drawn> = join_all(burst).await.into_iter().collect::<Result<_, _>>()?;
    println!("{}", svg(&burst));
    Ok(())
}

/// Sends a request of about 100 tokens at `at`, with an answer of 200.
async fn ask<S, B>(azure: S, begun: Instant, at: Duration) -> Result<Drawn, Box<dyn Error>>
where
    S: tower::Service<Request<Full<Bytes>>, Response = http::Response<B>, Error: Error + 'static>,
    B: http_body::Body<Error: Error + 'static>,
{
    tokio::time::sleep_until(begun + at).await;
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let prompt = "fact ".repeat(80);
    let body = format!(
        r#"{{"max_tokens": 200, "messages": [{{"role": "user", "content": "{prompt}"}}]}}"#
    );
    let response = azure.oneshot(Request::post(path).body(Full::from(body))?).await?;
    let served = response.extensions().get().cloned().expect("the layers leave it");
    response.into_body().collect().await?;
    Ok(Drawn { arrived: at, served, ended: begun.elapsed() })
}

/// One row per request: it waits from its arrival, and then an answer runs.
fn svg(burst: &[Drawn]) -> String {
    let end = burst.iter().map(|drawn| drawn.ended).max().unwrap_or_default();
    let width = LEFT + x(end) + 250.0;
    let height = TOP + ROW * burst.len() as f64 + 46.0;
    let mut body = String::new();
    for second in 0..=end.as_secs() {
        let at = LEFT + x(Duration::from_secs(second));
        let bottom = TOP + ROW * burst.len() as f64;
        _ = writeln!(
            body,
            r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{bottom}" stroke="#ddd"/>"##
        );
        text(&mut body, at, bottom + 16.0, "middle", &format!("{second} s"));
    }
    for (row, drawn) in burst.iter().enumerate() {
        draw(&mut body, TOP + ROW * row as f64, row, drawn);
    }
    let mut at = LEFT;
    for (color, name) in [
        (WAITS, "waits at the gate"),
        (PTU, "PTU"),
        (STANDARD, "Standard"),
        (REFUSED, "429, not seen by the caller"),
    ] {
        _ = writeln!(body, r#"<rect x="{at:.1}" y="14" width="12" height="12" fill="{color}"/>"#);
        text(&mut body, at + 18.0, 24.0, "start", name);
        at += 40.0 + 7.5 * name.len() as f64;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>"
    )
}

fn draw(body: &mut String, y: f64, row: usize, drawn: &Drawn) {
    text(body, LEFT - 10.0, y + 15.0, "end", &format!("request {}", row + 1));
    let last = drawn.served.attempts().next_back().expect("it was served");
    let sent = drawn.arrived + last.at();
    bar(body, y, drawn.arrived, sent, WAITS);
    bar(body, y, sent, drawn.ended, if drawn.served.spilled() { STANDARD } else { PTU });
    for attempt in drawn.served.attempts() {
        if matches!(attempt.outcome(), Outcome::Throttled(_)) {
            let at = LEFT + x(drawn.arrived + attempt.at());
            _ = writeln!(
                body,
                r#"<circle cx="{at:.1}" cy="{:.1}" r="4" fill="{REFUSED}"/>"#,
                y + 10.0
            );
        }
    }
    let backend = drawn.served.backend().unwrap_or_default();
    let waited = drawn.served.waited().as_millis();
    let told = match (drawn.served.spilled(), waited) {
        (false, 0) => backend.to_owned(),
        (false, _) => format!("{backend}, waited {waited} ms"),
        (true, 0) => format!("{backend}, spilled at once"),
        (true, _) => format!("{backend}, spilled after {waited} ms"),
    };
    text(body, LEFT + x(drawn.ended) + 8.0, y + 15.0, "start", &told);
}

fn bar(body: &mut String, y: f64, from: Duration, to: Duration, color: &str) {
    let (x, width) = (LEFT + x(from), x(to.saturating_sub(from)));
    _ = writeln!(
        body,
        r#"<rect x="{x:.1}" y="{:.1}" width="{width:.1}" height="16" fill="{color}"/>"#,
        y + 2.0
    );
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    _ = writeln!(body, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{content}</text>"#);
}

fn x(at: Duration) -> f64 {
    at.as_secs_f64() * PIXELS_PER_SECOND
}

const PIXELS_PER_SECOND: f64 = 170.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 40.0;
const ROW: f64 = 22.0;
const WAITS: &str = "#c9ced6";
const PTU: &str = "#2f6fb3";
const STANDARD: &str = "#e08a2c";
const REFUSED: &str = "#c22";
