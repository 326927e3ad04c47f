//! One run of a row: emulated resources, the gateway as a program before them, and its callers.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use spillover_emulator::{Emulator, Fault, Serving};
use spillover_testing::real::{pause, soon};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::{
    callers::{Answer, Caller, Sent},
    rows::{MODEL, RESTART, RESTARTS, Row},
};

/// What the healthy callers of one run saw.
pub(crate) struct Run {
    pub(crate) sent: Vec<Sent>,
    /// How many requests were under way at a resource when it restarted.
    pub(crate) under_way: usize,
}

impl Run {
    pub(crate) fn count(&self, answer: Answer) -> usize {
        self.sent.iter().filter(|sent| sent.answer == answer).count()
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
    let calls = |word, per_second| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{word}"}}]}}"#);
        Caller { per_second, body }.call(&address, row.lasts)
    };
    let healthy = calls("Hello", row.healthy_per_second);
    let poisoned = async {
        // Just before the next healthy request, where there is one a second.
        pause(900).await;
        calls(POISON, row.poisoned_per_second).await
    };
    let restarts = restart(row, &emulator, &names, servings);
    let (sent, _, _servings) = futures::join!(healthy, poisoned, restarts);
    let cut = emulator.stats().total().abandoned as usize;
    // Where there is another resource, nobody has to wait for the one that is away.
    let waiting =
        if names.len() > 1 { 0 } else { sent.iter().filter(|sent| is_away(row, sent.at)).count() };
    Run { sent, under_way: cut + waiting }
}

/// Closes and opens the listeners as the row says.
async fn restart(
    row: &Row,
    emulator: &Emulator,
    names: &[String],
    servings: Vec<Serving>,
) -> Vec<Serving> {
    let mut servings: Vec<_> = servings.into_iter().map(Some).collect();
    let mut passed = Duration::ZERO;
    for (resource, at) in row.restarts.iter().zip(RESTARTS) {
        pause(at.saturating_sub(passed).as_millis() as u64).await;
        let serving = servings[*resource].take().expect("it is back from its last restart");
        let addr = serving.addr();
        serving.shutdown().await;
        pause(RESTART.as_millis() as u64).await;
        let listener = TcpListener::bind(addr).await.expect("the port is free again");
        servings[*resource] = Some(emulator.serve(&names[*resource], listener));
        passed = at + RESTART;
    }
    servings.into_iter().flatten().collect()
}

fn is_away(row: &Row, at: Duration) -> bool {
    row.restarts.iter().zip(RESTARTS).any(|(_, begun)| (begun..begun + RESTART).contains(&at))
}

/// `spillover serve` with these settings of its model, and where it listens.
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

const POISON: &str = "POISON";
