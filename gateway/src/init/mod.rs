//! `spillover init`: writes an initial configuration, or converts that of another gateway.

mod apim;
mod args;
mod draft;
mod endpoint;
mod litellm;
mod write;
mod yaml;

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

pub(crate) use self::args::InitArgs;
use self::draft::Draft;
use crate::{config, files, output};

/// Writes the file and reports what is left to do.
pub(crate) fn run(args: &InitArgs) -> ExitCode {
    let (text, report) = match converted(args) {
        Ok(Some(draft)) => (write::text(&draft), report(&draft)),
        Ok(None) => (TEMPLATE.to_owned(), String::new()),
        Err(problem) => return fail(&problem, NOT_CONVERTED),
    };
    // Never write a file that `check` would refuse once the variables are set.
    let any_secret = |name: &str| Some(format!("{PROBE_SECRET}{name}"));
    if let Err(problems) = config::parse(&text, &any_secret) {
        return fail(&format!("this cannot be served:\n{problems}"), NOT_CONVERTED);
    }
    let written = match &args.file {
        None => output::print(&text).map_err(|error| format!("cannot write: {error}")),
        Some(file) => write_new(file, &text),
    };
    if let Err(problem) = written {
        return fail(&problem, NOT_WRITTEN);
    }
    let mut next = report;
    if let Some(file) = &args.file {
        let file = file.display();
        let _ = writeln!(next, "wrote {file}; validate it with `spillover check {file}`.");
    }
    if !next.is_empty() {
        output::report(next.trim_end());
    }
    ExitCode::SUCCESS
}

/// Converts the source; `None` if there is none.
fn converted(args: &InitArgs) -> Result<Option<Draft>, String> {
    let (kind, source) = match &args.from[..] {
        [] => return Ok(None),
        [kind, source] => (kind, source),
        _ => return Err("--from stands twice: convert one source".to_owned()),
    };
    let read = |file: &Path| {
        files::read_text(file, files::MAX_FILE_BYTES, files::PATIENCE)
            .map_err(|error| format!("{}: {error}", file.display()))
    };
    let text = read(Path::new(source))?;
    let more = args.backends.iter().map(|file| {
        let text = read(file)?;
        Ok((file.display().to_string(), text))
    });
    let more = more.collect::<Result<Vec<_>, String>>()?;
    let variable = |name: &str| std::env::var(name).ok();
    let draft = match kind.as_str() {
        "litellm" if !more.is_empty() => {
            return Err("--backends is for --from apim: remove it".to_owned());
        }
        "litellm" => litellm::draft(&text, &variable),
        "apim" => apim::draft(&text, &more, &args.model),
        _ => return Err(format!("--from {kind}: unknown source; use litellm or apim")),
    };
    draft.map(Some).map_err(|problem| format!("{source}: {problem}"))
}

/// What is left to do, and what was left out.
fn report(draft: &Draft) -> String {
    let mut text = String::new();
    let mut list = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            let _ = writeln!(text, "{title}\n  - {}\n", lines.join("\n  - "));
        }
    };
    list("Set these variables before it is served:", &draft.variables());
    list("Check these:", &draft.remarks);
    list("Left out:", &draft.left_out);
    text
}

fn write_new(file: &Path, text: &str) -> Result<(), String> {
    let created = OpenOptions::new().write(true).create_new(true).open(file);
    let mut created = created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} already exists and was not changed: name another file", file.display())
        }
        _ => format!("{}: {error}", file.display()),
    })?;
    created.write_all(text.as_bytes()).map_err(|error| format!("{}: {error}", file.display()))
}

fn fail(problem: &str, status: u8) -> ExitCode {
    output::report(problem);
    ExitCode::from(status)
}

const NOT_WRITTEN: u8 = 1;
const NOT_CONVERTED: u8 = 2;
/// The prefix of placeholder secrets, to validate the output with: long enough, and not a
/// placeholder word.
const PROBE_SECRET: &str = "b7f3c1d09e5a4862";
const TEMPLATE: &str = include_str!("template.toml");
