//! The gateway without a configuration file: in front of emulated resources.

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

/// A complete command to send a request to the gateway at `url`.
pub(crate) fn curl(url: &str) -> String {
    format!(
        "curl -i '{url}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21' \
         -H 'content-type: application/json' \
         -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
    )
}
