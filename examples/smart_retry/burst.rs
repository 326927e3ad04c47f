//! The demonstration: a burst that overruns an emulated PTU and shows every branch.

use std::{fmt, time::Duration};

use spillover_emulator::{Pace, Ptu, Standard};
use tokio::{task::JoinSet, time::Instant};
use tower_spillover::Served;

use crate::{
    Failure,
    account::{Account, Run},
    loopback::{Ask, BACKENDS, Loopback, Policy},
    report::{Out, ms},
};

/// The ways in which a request can end, in the order of their price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    Ptu,
    WaitedThenPtu,
    Spilled,
    Rotated,
    AllClosed,
}

/// Runs the demonstration; fails if a branch did not occur.
pub(crate) async fn run(out: &mut Out) -> Result<(), Failure> {
    out.say(&format!(
        "An emulated Azure OpenAI on loopback: a PTU ({}), and Standard in {}.\n\
         A request waits for the PTU for {} at most. After \"429\": how long it is closed.\n\
         (--help tells what else this can do.)",
        BACKENDS[0],
        BACKENDS[1..].join(", "),
        ms(MAX_WAIT),
    ))?;
    let loopback = Loopback::start(ptu(), STANDARD.map(standard), PACE).await?;
    let mut show = Show {
        ask: loopback.stack(Policy::Spillover, MAX_WAIT)?,
        run: Policy::Spillover.run(),
        branches: Vec::new(),
        begun: Instant::now(),
        loopback,
    };
    show.scene("Calm, one request after the other:", 2, CALM, true, out).await?;
    show.scene("A burst, all at once, of more than everything can take:", 16, LARGE, false, out)
        .await?;
    show.scene("After it, one more, which knows what the others learned:", 1, CALM, true, out)
        .await?;
    out.say("")?;
    let Show { run, branches, loopback, .. } = show;
    let run = run.finish();
    out.result(std::slice::from_ref(&run))?;
    loopback.check(&run)?;
    match BRANCHES.iter().find(|branch| !branches.contains(branch)) {
        Some(missing) => Err(format!("no request was \"{missing}\"").into()),
        None => Ok(()),
    }
}

struct Show {
    loopback: Loopback,
    ask: Ask,
    run: Run,
    branches: Vec<Branch>,
    begun: Instant,
}

impl Show {
    /// Sends `count` requests, one after the other or all at once.
    async fn scene(
        &mut self,
        title: &str,
        count: usize,
        (prompt, completion): (u64, u64),
        in_turn: bool,
        out: &mut Out,
    ) -> Result<(), Failure> {
        out.say(&format!("\n{title}"))?;
        let mut asking = JoinSet::new();
        for _ in 0..count {
            asking.spawn((self.ask)(self.loopback.request(prompt, completion)));
            self.run.requests += 1;
            if in_turn {
                self.note(&mut asking, out).await?;
            }
        }
        while !asking.is_empty() {
            self.note(&mut asking, out).await?;
        }
        Ok(())
    }

    /// Records the next request that ends.
    async fn note(&mut self, asking: &mut JoinSet<Account>, out: &mut Out) -> Result<(), Failure> {
        // A request that panicked leaves no result, and counts as lost.
        let Some(Ok(account)) = asking.join_next().await else { return Ok(()) };
        let branch = Branch::of(&account);
        let name = branch.map_or_else(|| "failed".to_owned(), |branch| branch.to_string());
        out.say(&format!("  at {:>8}  {name:<21} {}", ms(self.begun.elapsed()), story(&account)))?;
        self.branches.extend(branch);
        self.run.add(account);
        Ok(())
    }
}

impl Branch {
    fn of(account: &Account) -> Option<Self> {
        if account.is_refused() {
            return Some(Self::AllClosed);
        }
        let branch = match account {
            account if account.rotated() => Self::Rotated,
            account if account.spilled() => Self::Spilled,
            account if !account.waited().is_zero() => Self::WaitedThenPtu,
            _ => Self::Ptu,
        };
        account.is_ok().then_some(branch)
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ptu => "served by PTU",
            Self::WaitedThenPtu => "waited, then PTU",
            Self::Spilled => "spilled",
            Self::Rotated => "spilled and rotated",
            Self::AllClosed => "all closed",
        })
    }
}

/// The attempts of a request, and its end.
fn story(account: &Account) -> String {
    let mut story = account.served.as_ref().map(Served::to_string).unwrap_or_default();
    if account.is_refused() {
        let wait = account.retry_after.unwrap_or_default();
        story += &format!(" => the caller's 429: back in {}", ms(wait));
    }
    if let Some(problem) = &account.problem {
        story += problem;
    }
    story
}

/// A [`LARGE`] request closes it for 900 ms when it is empty, and for a second when it was full: one
/// wait fits into [`MAX_WAIT`], two do not, with hundreds of milliseconds to spare on a busy machine.
fn ptu() -> Ptu {
    Ptu::new(2_000.0).bucket_seconds(0.1)
}

/// So many requests in ten seconds, in which the demonstration is over.
fn standard(requests: u64) -> Standard {
    Standard::tokens_per_minute(10_000_000).requests_per_minute(requests * 6)
}

const MAX_WAIT: Duration = Duration::from_millis(1_500);
const PACE: Pace =
    Pace { first_token: Duration::from_millis(20), per_token: Duration::from_millis(1) };
/// Together half of what the burst spills.
const STANDARD: [u64; 3] = [2, 2, 3];
/// Prompt and completion tokens.
const CALM: (u64, u64) = (20, 10);
const LARGE: (u64, u64) = (1_970, 10);
const BRANCHES: [Branch; 5] =
    [Branch::Ptu, Branch::WaitedThenPtu, Branch::Spilled, Branch::Rotated, Branch::AllClosed];
