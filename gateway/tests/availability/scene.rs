//! One run of a row: emulated resources, the gateway process in front of them, and its callers.

use std::{
    fmt::Write as _,
    fs::{self, File},
    ops::Range,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use spillover_emulator::{Emulator, Fault, Serving};
use spillover_testing::real::{Stopwatch, pause, soon};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::{
    callers::{Answer, Caller, Sent},
    rows::{CHAT, MODEL, Neighbour, POISON, RESTART, RESTARTS, Row},
};

/// The results of the healthy callers of one run.
pub(crate) struct Run {
    pub(crate) sent: Vec<Sent>,
    /// When a resource was restarting.
    restarts: Vec<Range<Duration>>,
}

impl Run {
    pub(crate) fn count(&self, answer: Answer) -> usize {
        self.sent.iter().filter(|sent| sent.answer == answer).count()
    }

    /// How many requests were not served, excluding those in flight while a resource restarted.
    pub(crate) fn lost_without_cause(&self) -> usize {
        let is_cause =
            |sent: &Sent, away: &Range<Duration>| sent.at < away.end && sent.done > away.start;
        let lost = self.sent.iter().filter(|sent| sent.answer != Answer::Served);
        lost.filter(|sent| !self.restarts.iter().any(|away| is_cause(sent, away))).count()
    }
}

pub(crate) async fn run(row: &Row, failover: bool) -> Run {
    let resources = (row.resources)();
    let names: Vec<_> = resources.iter().map(|resource| resource.name().to_owned()).collect();
    let emulator = Emulator::new(resources).poison(POISON, Fault::status(500)).seed(1);
    let mut servings = Vec::new();
    for name in &names {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        servings.push(emulator.serve(name, listener));
    }
    let settings = if failover { row.failover } else { "failures = []" };
    let (_gateway, address) = gateway(row, settings, failover, &servings).await;
    let clock = Stopwatch::start();
    let caller =
        |per_second, path, body| Caller { per_second, path, body }.call(&address, row.lasts, clock);
    let healthy = caller(row.healthy_per_second, CHAT, HEALTHY);
    let neighbour = async {
        if let Some(Neighbour { per_second, path, body }) = row.neighbour {
            // Just before the next healthy request, if there is one per second.
            pause(900).await;
            caller(per_second, path, body).await;
        }
    };
    let restarts = restart(row, clock, &emulator, &names, servings);
    let (sent, (), (restarts, _servings)) = futures::join!(healthy, neighbour, restarts);
    Run { sent, restarts }
}

/// Closes and opens the listeners as the row specifies, and returns when they were closed.
async fn restart(
    row: &Row,
    clock: Stopwatch,
    emulator: &Emulator,
    names: &[String],
    servings: Vec<Serving>,
) -> (Vec<Range<Duration>>, Vec<Serving>) {
    let mut servings: Vec<_> = servings.into_iter().map(Some).collect();
    let mut restarts = Vec::new();
    for (resource, at) in row.restarts.iter().zip(RESTARTS) {
        pause(at.saturating_sub(clock.elapsed()).as_millis() as u64).await;
        let begun = clock.elapsed();
        let serving = servings[*resource].take().expect("it is back from its last restart");
        let addr = serving.addr();
        serving.shutdown().await;
        pause(RESTART.as_millis() as u64).await;
        let listener = TcpListener::bind(addr).await.expect("the port is free again");
        servings[*resource] = Some(emulator.serve(&names[*resource], listener));
        restarts.push(begun..clock.elapsed());
    }
    (restarts, servings.into_iter().flatten().collect())
}

/// `spillover serve` with these settings of its model, and its address.
async fn gateway(
    row: &Row,
    settings: &str,
    failover: bool,
    servings: &[Serving],
) -> (Child, String) {
    let mut text = format!(
        "clients.open = true\nlisten.address = \"127.0.0.1:0\"\ntelemetry.log = \"info\"\n\
         [models.\"{MODEL}\"]\n{settings}\n"
    );
    for (index, serving) in servings.iter().enumerate() {
        let tier = if index < row.ptus { "ptu" } else { "standard" };
        let _ = write!(
            text,
            "[[models.\"{MODEL}\".{tier}]]\nname = \"b{index}\"\nendpoint = \"{}\"\n\
             key = \"env:AZURE_KEY\"\n",
            serving.endpoint()
        );
    }
    let name = row.name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("availability");
    let folder = folder.join(format!("{name}-{}", if failover { "with" } else { "without" }));
    fs::create_dir_all(&folder).expect("a folder");
    let config = folder.join("spillover.toml");
    fs::write(&config, text).expect("a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_spillover"))
        .args(["serve", "--config"])
        .arg(&config)
        .env("AZURE_KEY", "azure-key")
        .stdout(Stdio::piped())
        .stderr(File::create(folder.join("gateway.log")).expect("a file"))
        .kill_on_drop(true)
        .spawn()
        .expect("the program is there");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let line = soon(output.lines().next_line()).await.expect("text");
    let line = line.unwrap_or_else(|| panic!("it did not start: see {}", folder.display()));
    let address = line.rsplit("http://").next().expect("where it listens").to_owned();
    (child, address)
}

const HEALTHY: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}"#;
