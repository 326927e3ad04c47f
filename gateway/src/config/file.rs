//! Reads the configuration file.

use std::{io::ErrorKind, path::Path, time::Duration};

use toml::de::DeTable;

use super::{
    Clients, Config, client,
    endpoint::strip_field,
    fleet, idle,
    model::{self, Models},
    model_policy, operations, other_format,
    parse_context::{self, Contents, Environment, Findings, ParseContext},
    problem::{self, Problem, Problems},
    proxy, server, tokens,
    toml::Section,
};
use crate::files::{self, MAX_CONFIG_BYTES, PATIENCE};

/// Loads the configuration file at `path`, with the secrets that it refers to.
///
/// # Errors
///
/// All problems of the file. A TOML syntax error is reported alone, because it would cause further
/// errors.
pub fn load(path: &Path) -> Result<Config, Problems> {
    read(path, &variable, PATIENCE).result
}

/// Parses the configuration in `text`, which refers to no files.
///
/// # Errors
///
/// As in [`load`].
pub fn parse(text: &str, environment: &Environment<'_>) -> Result<Config, Problems> {
    let path = Path::new("");
    read_text(path, text, ParseContext::new(path, text, environment, PATIENCE)).0
}

/// The environment of the process.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|value| value.into_string().ok())
}

/// A configuration and the files it was read from.
pub(super) struct Reading {
    pub(super) result: Result<Config, Problems>,
    pub(super) contents: Contents,
}

/// Waits for pipes for up to `patience`.
pub(super) fn read(path: &Path, environment: &Environment<'_>, patience: Duration) -> Reading {
    let mut contents = Contents::new();
    let bytes = files::read(path, MAX_CONFIG_BYTES, patience);
    parse_context::note(&mut contents, path.to_owned(), bytes.as_deref().ok());
    let whole = |text| Err(Problems::new(vec![Problem::whole(path, text)]));
    let result = match bytes.map(String::from_utf8) {
        Err(error) if error.kind() == ErrorKind::FileTooLarge => whole(format!(
            "is larger than {} MiB, which no configuration needs; check the path",
            MAX_CONFIG_BYTES >> 20
        )),
        Err(error) => {
            let reason = parse_context::reason(&error);
            whole(format!("cannot be read ({reason}); check the path and its permissions"))
        }
        Ok(Err(_)) => whole("is not text; write it as UTF-8".to_owned()),
        Ok(Ok(text)) => {
            let context = ParseContext::new(path, &text, environment, patience);
            let (config, more) = read_text(path, &text, context);
            contents.extend(more);
            config
        }
    };
    Reading { result, contents }
}

fn read_text<'a>(
    path: &Path,
    text: &'a str,
    context: ParseContext<'a>,
) -> (Result<Config, Problems>, Contents) {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty()
        && let Some(problem) = other_format::of(path, text)
    {
        let problem = Problem::whole(path, problem.to_owned());
        return (Err(Problems::new(vec![problem])), Contents::new());
    }
    if !errors.is_empty() {
        let problems = errors.iter().map(|error| {
            let span = error.span().unwrap_or_default();
            let told = format!("is not TOML ({}); correct this line", error.message());
            Problem::new(path, text, span, String::new(), told)
        });
        return (Err(Problems::new(problems.collect())), Contents::new());
    }
    let mut config = config(&context, root.get_ref());
    if !context.is_wrong() {
        idle::warn(Section::new(&context, String::new(), 0..0, Some(root.get_ref())), &config);
    }
    let Findings { problems, warnings, contents } = context.finish();
    config.idle = problem::in_order(warnings);
    let result = if problems.is_empty() { Ok(config) } else { Err(Problems::new(problems)) };
    (result, contents)
}

/// The configuration, with a placeholder for everything that was reported.
fn config<'a>(context: &'a ParseContext<'a>, root: &'a DeTable<'a>) -> Config {
    let mut root = Section::new(context, String::new(), 0..0, Some(root));
    let listen = server::listen(root.section("listen"));
    let limits = server::limits(root.section("limits"));
    let mut upstream = server::upstream(root.section("upstream"));
    let operations = operations::operations(root.section("operations"));
    let sticky = model_policy::memory(root.section("sticky"));
    let telemetry = server::telemetry(root.section("telemetry"));
    let entra = root.optional("entra").map(server::entra);
    let fleet = root.optional("fleet").and_then(|section| fleet::fleet(section, entra.as_ref()));
    let tokens = root.optional("tokens").and_then(tokens::tokens);
    let classes = client::classes(&root.section("classes"));
    let section = root.section("models");
    let models = Models::read(&section, &classes);
    let of_fleet = fleet.as_ref().filter(|fleet| fleet.entra.is_some()).map(|_| "fleet.auth");
    let first = models.entra.first().map(String::as_str).or(of_fleet);
    if let Some(first) = first.filter(|_| entra.is_none() && !root.has("entra")) {
        let text = format!("is missing, and {first} needs it; add kind = \"workload\"");
        context.report(0..0, "entra", text);
    }
    check_pools(&models, &section);
    if let (Some(settings), Some(mut section)) = (&fleet, root.optional("fleet")) {
        fleet::check_timeout(&mut section, settings, &models.models);
    }
    let default_model = root.get("default_model").and_then(|value| models.find(&value));
    let has_authority = listen.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    let sources = client::Sources {
        tokens: root.has("tokens"),
        // Problems of the listener's TLS were already reported.
        certificates: has_authority || context.is_wrong(),
    };
    let clients: Clients = client::clients(root.section("clients"), &models, &classes, &sources);
    root.finish();
    proxy::check_environment(context);
    upstream.proxies = models.proxies.own;
    let models = models.models;
    Config {
        listen,
        limits,
        upstream,
        operations,
        sticky,
        models,
        default_model,
        clients,
        tokens,
        entra,
        fleet,
        telemetry,
        idle: Vec::new(),
    }
}

/// Validates with the library itself, after all problems whose message is known.
fn check_pools(models: &Models, section: &Section<'_>) {
    if section.context.is_wrong() {
        return;
    }
    for model in models.models.values() {
        for tier in [&model.ptu, &model.standard] {
            if let Some(error) = (!tier.is_empty()).then(|| model::pool(tier).err()).flatten() {
                section.report(strip_field(&error));
            }
        }
    }
}
