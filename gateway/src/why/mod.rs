//! `spillover why`: explains what a running gateway did for one request.

mod args;
mod ask;
mod story;

use std::process::ExitCode;

pub(crate) use self::args::WhyArgs;
use crate::output;

/// Prints the history of every request with the id; fails if there is none.
pub(crate) fn run(args: &WhyArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let document = match runtime.block_on(ask::ask(args)) {
        Ok(document) => document,
        Err(problem) => return fail(&problem),
    };
    // The gateway is configured to keep none, or the server is not a gateway.
    let Some(requests) = document["requests"].as_array() else {
        return fail("the answer is not a list of requests: check --admin");
    };
    if requests.is_empty() {
        let kept = document["capacity"].as_u64().unwrap_or_default();
        let id = &args.id;
        output::report(&match kept {
            0 => "the gateway keeps no requests: set telemetry.recent_requests".to_owned(),
            kept => format!(
                "no request with the id {id:?} among the last {kept} that ended: it may still be under \
                 way, have come before them, or have gone to another replica"
            ),
        });
        return ExitCode::from(NOT_FOUND);
    }
    let text = if args.json {
        format!("{:#}\n", serde_json::Value::from(requests.clone()))
    } else {
        // In the order in which they ended.
        requests.iter().rev().map(story::of).collect::<Vec<_>>().join("\n")
    };
    match output::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write: {error}")),
    }
}

fn fail(problem: &str) -> ExitCode {
    output::report(problem);
    ExitCode::from(NOT_ASKED)
}

const NOT_FOUND: u8 = 1;
const NOT_ASKED: u8 = 2;
