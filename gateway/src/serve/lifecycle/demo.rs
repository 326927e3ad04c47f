//! The gateway without a configuration file: in front of emulated resources.

use std::env;

use spillover_emulator::Serving;

use crate::{
    config::{self, Config},
    emulate,
};

/// The demonstration's resources; dropping it stops them.
pub(crate) struct Azure(#[expect(dead_code, reason = "kept, so that they serve")] Vec<Serving>);

/// Starts the resources on free ports, and builds the matching configuration.
pub(crate) async fn start() -> std::io::Result<(Azure, Config)> {
    let azure = emulate::demo().await?;
    let mut text = include_str!("demo.toml").to_owned();
    for (index, resource) in azure.iter().enumerate() {
        text = text.replace(&format!("{{{index}}}"), &resource.endpoint());
    }
    // The resources accept any request, but a backend needs a key.
    let variable = |name: &str| (name == "DEMO_KEY").then(|| "a-key".to_owned());
    let config = config::parse(&text, &variable)
        .unwrap_or_else(|problems| panic!("the built-in file is right: {problems}"));
    Ok((Azure(azure), config))
}

/// The instructions for the demonstration at `url`: a request, how to stop it, a load that spills,
/// and the status page. Each command can be run unchanged.
pub(crate) fn lines(url: &str, admin: Option<&str>) -> [String; 4] {
    let command = env::args_os().next().and_then(|name| name.into_string().ok());
    let command = command.map(|name| quoted(&name)).unwrap_or_else(|| "spillover".to_owned());
    let admin = admin.unwrap_or(url);
    [
        format!(
            "curl -i '{url}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21' \
             -H 'content-type: application/json' \
             -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
        ),
        format!("listening on {url} until Ctrl-C stops it"),
        format!("{command} load --endpoint {url} {LOAD}  # {EXPECTED}"),
        format!(
            "curl -s {admin}/-/status  # how full the PTU is, and what the regions do; /-/requests \
             has the last requests, {command} why ID --admin {admin} the story of one"
        ),
    ]
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/+".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// More than the demonstration's PTU drains, which is three to four such requests per second.
const LOAD: &str = "--rate 6 --duration 20s --max-tokens 100";
/// Measured: of 129 requests the PTU served 63 % after a median wait of 2.8 s and 3.9 s at most, and 37 %
/// spilled, most of them without a wait.
const EXPECTED: &str = "24 s: about six in ten wait for the PTU, up to 4 s (max_wait), and the others spill, most at once";
