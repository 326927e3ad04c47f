//! Reads the targets: the reference's `json.env`, TOML, or the command line.

use std::{fmt, path::Path};

use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::args::{Api, Grammar, LoadArgs};
use crate::{
    command_key::{self, KeyHeader, escaped},
    emulate::Site,
    files,
};

/// A validated target.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) uri: Uri,
    pub(super) key: Option<(HeaderName, HeaderValue)>,
}

impl Target {
    /// All targets of a run, at least one.
    pub(super) fn all(args: &LoadArgs) -> Result<Vec<Self>, String> {
        let Some(file) = &args.targets else {
            let key = args.key.clone();
            if key.as_deref().is_some_and(|key| !command_key::is_reference(key)) {
                return Err(
                    "--key must be env:NAME or file:PATH: command lines are visible to other users"
                        .to_owned(),
                );
            }
            let endpoint = args.endpoint.clone().unwrap_or_default();
            let text = TargetText { name: None, endpoint, key, header: Some(args.header) };
            return Ok(vec![Self::new(text, args).map_err(|problem| format!("--{problem}"))?]);
        };
        let texts = read(file)?;
        if texts.is_empty() {
            return Err(format!("{}: no target: add one", file.display()));
        }
        (texts.into_iter().enumerate())
            .map(|(index, text)| {
                let place = |problem| format!("{}: target {index}: {problem}", file.display());
                Self::new(text, args).map_err(place)
            })
            .collect()
    }

    fn new(text: TargetText, args: &LoadArgs) -> Result<Self, String> {
        let uri = address(&text.endpoint, args)?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let key = match &text.key {
            None => None,
            Some(key) => Some(command_key::credential(key, text.header.unwrap_or(args.header))?),
        };
        Ok(Self { name: text.name.unwrap_or(authority), uri, key })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetText {
    name: Option<String>,
    endpoint: String,
    key: Option<String>,
    header: Option<KeyHeader>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    targets: Vec<TargetText>,
}

fn read(file: &Path) -> Result<Vec<TargetText>, String> {
    let text = files::read_text(file, files::MAX_FILE_BYTES, files::PATIENCE)
        .map_err(|error| format!("{}: {error}: check --targets", file.display()))?;
    // Windows editors, and so the reference's users, add a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    let site = Site::new(file, text);
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        let parsed: Result<FileText, _> = toml::from_str(text);
        return parsed
            .map(|parsed| parsed.targets)
            .map_err(|error| site.at(error.span(), error.message()));
    }
    serde_json::from_str(text).map_err(|error| {
        let remedy = "a JSON array of {\"endpoint\": URL, \"key\": KEY} belongs here";
        site.on_line(error.line(), &format!("{error}: {remedy}"))
    })
}

/// A target's URL for the operation.
fn address(endpoint: &str, args: &LoadArgs) -> Result<Uri, String> {
    // An endpoint that may contain a password is not repeated.
    let wrong = || "endpoint: not a URL like https://contoso.openai.azure.com/".to_owned();
    let given: Uri = endpoint.trim().parse().map_err(|_| wrong())?;
    let known = matches!(given.scheme_str(), Some("http" | "https"));
    let authority = given.authority().filter(|_| known).ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err("endpoint: passwords in URLs are not sent: use key".to_owned());
    }
    if given.query().is_some() {
        return Err("endpoint: the load tester adds the query: remove it".to_owned());
    }
    let base = format!("{}://{authority}{}", given.scheme_str().unwrap_or_default(), given.path());
    let base = base.trim_end_matches('/');
    let base = base.strip_suffix("/openai/v1").unwrap_or(base);
    let (operation, version) = match args.api {
        Api::Chat => ("chat/completions", "2024-10-21"),
        Api::Embeddings => ("embeddings", "2024-10-21"),
        // The first version with responses.
        Api::Responses => ("responses", "2025-03-01-preview"),
    };
    let version = escaped(args.api_version.as_deref().unwrap_or(version));
    let whole = match (args.grammar, args.api) {
        (Grammar::V1, _) => format!("{base}/openai/v1/{operation}"),
        (Grammar::Classic, Api::Responses) => {
            format!("{base}/openai/{operation}?api-version={version}")
        }
        (Grammar::Classic, _) => {
            let deployment = escaped(&args.deployment);
            format!("{base}/openai/deployments/{deployment}/{operation}?api-version={version}")
        }
    };
    whole.parse().map_err(|_| wrong())
}
