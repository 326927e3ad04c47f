//! Reads and validates the TOML of `spillover emulate`.

mod capacity;
mod failing;
mod fault;
mod span;
mod text;

use std::{env, net::SocketAddr, path::Path};

use spillover_emulator::{Deployment, Emulator, Fault, Pace, Resource};
use toml::Spanned;

use self::text::{DeploymentText, FileText, ResourceText};
use super::Site;
use crate::files;

/// What to emulate.
pub(super) struct Wanted {
    pub(super) seed: u64,
    /// Markers in requests, and the faults for them.
    pub(super) poison: Vec<(String, Fault)>,
    pub(super) resources: Vec<WantedResource>,
}

pub(super) struct WantedResource {
    pub(super) place: Place,
    pub(super) resource: Resource,
    pub(super) scripts: Vec<Script>,
}

/// The printed description of a resource.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) region: String,
    pub(super) listen: Option<SocketAddr>,
    pub(super) deployments: Vec<String>,
}

/// The faults of a deployment.
pub(super) struct Script {
    pub(super) resource: String,
    pub(super) deployment: String,
    pub(super) faults: Vec<Fault>,
}

impl Wanted {
    /// Builds the resources, with `seed` or the file's seed, and their descriptions.
    pub(super) fn emulator(self, seed: Option<u64>) -> (Emulator, Vec<Place>) {
        let mut places = Vec::with_capacity(self.resources.len());
        let mut resources = Vec::with_capacity(self.resources.len());
        let mut scripts = Vec::new();
        for WantedResource { place, resource, scripts: more } in self.resources {
            places.push(place);
            resources.push(resource);
            scripts.extend(more);
        }
        let mut emulator = Emulator::new(resources).seed(seed.unwrap_or(self.seed));
        for (marker, fault) in self.poison {
            emulator = emulator.poison(marker, fault);
        }
        for script in scripts {
            emulator.script(&script.resource, &script.deployment, script.faults);
        }
        (emulator, places)
    }
}

/// Reports all problems of a file at once, unless it cannot be parsed.
pub(super) fn load(file: &Path) -> Result<Wanted, Vec<String>> {
    let text = files::read_text(file, files::MAX_FILE_BYTES, files::PATIENCE)
        .map_err(|error| vec![format!("{}: {error}: check --config", file.display())])?;
    parse(file, &text)
}

/// Parses `text`; `file` is its origin.
pub(super) fn parse(file: &Path, text: &str) -> Result<Wanted, Vec<String>> {
    let site = Site::new(file, text);
    let parsed: FileText = toml::from_str(text).map_err(|error| {
        let problem = format!("{}; `spillover emulate --help` shows a whole file", error.message());
        vec![site.at(error.span(), &problem)]
    })?;
    let mut check = Check { site, problems: Vec::new() };
    if parsed.resources.is_empty() {
        check.problems.push(format!("{}: no [[resources]]: add one", file.display()));
    }
    let mut resources: Vec<WantedResource> = Vec::with_capacity(parsed.resources.len());
    for resource in parsed.resources {
        let twin = (resources.iter())
            .any(|other| other.place.name.eq_ignore_ascii_case(resource.name.get_ref()));
        if twin {
            check.wrong(&resource.name, "another resource has this name: rename one of them");
        }
        resources.push(check.resource(resource));
    }
    let poison = check.poison(&parsed.poison);
    if check.problems.is_empty() {
        Ok(Wanted { seed: parsed.seed.unwrap_or(0), poison, resources })
    } else {
        Err(check.problems)
    }
}

struct Check<'a> {
    site: Site<'a>,
    problems: Vec<String>,
}

impl Check<'_> {
    fn wrong<T>(&mut self, at: &Spanned<T>, problem: &str) {
        self.problems.push(self.site.at(Some(at.span()), problem));
    }

    fn resource(&mut self, text: ResourceText) -> WantedResource {
        let name = text.name.get_ref().clone();
        if !is_label(&name) {
            self.wrong(&text.name, "is no host name: use letters, digits and hyphens");
        }
        let region = text.region.unwrap_or_else(|| "East US".to_owned());
        let mut resource = Resource::new(&name).region(&region);
        for key in text.key.iter().chain(&text.keys) {
            resource = resource.key(self.secret(key));
        }
        for token in text.token.iter().chain(&text.tokens) {
            resource = resource.token(self.secret(token));
        }
        for outage in &text.outages {
            if let Some(outage) = self.outage(outage) {
                resource = resource.outage(outage);
            }
        }
        if text.keep_alive == Some(false) {
            resource = resource.closes_connections();
        }
        if let Some(streams) = text.http2_streams {
            resource = resource.http2_streams(streams);
        }
        if let Some(requests) = text.creations_per_minute {
            resource = resource.creations_per_minute(requests);
        }
        if let Some(requests) = text.reads_per_minute {
            resource = resource.reads_per_minute(requests);
        }
        if text.deployments.is_empty() {
            self.wrong(&text.name, "has no [[resources.deployments]]: add one");
        }
        let names: Vec<_> = text.deployments.iter().map(|d| d.name.get_ref().clone()).collect();
        let mut scripts = Vec::new();
        for (index, deployment) in text.deployments.into_iter().enumerate() {
            if names[..index].contains(deployment.name.get_ref()) {
                self.wrong(&deployment.name, "another deployment has this name: rename one");
            }
            let faults = self.faults(&deployment.faults);
            if !faults.is_empty() {
                let deployment = deployment.name.get_ref().clone();
                scripts.push(Script { resource: name.clone(), deployment, faults });
            }
            if let Some(deployment) = self.deployment(deployment, &names) {
                resource = resource.deployment(deployment);
            }
        }
        let place = Place { name, region, listen: text.listen, deployments: names };
        WantedResource { place, resource, scripts }
    }

    fn deployment(&mut self, text: DeploymentText, names: &[String]) -> Option<Deployment> {
        let mut deployment = self.limited(&text)?;
        for (share, fault) in self.failures(&text.failures) {
            deployment = deployment.fails(share, fault);
        }
        if let Some(capacity) = &text.flex {
            deployment = deployment.flex(self.quota(capacity));
        }
        if let Some(capacity) = &text.priority {
            deployment = deployment.priority(self.quota(capacity));
        }
        if let Some(requests) = text.media_per_minute {
            deployment = deployment.media_per_minute(requests);
        }
        if let Some(model) = text.model {
            deployment = deployment.model(model);
        }
        if let Some(pace) = text.pace {
            let of = |span: Option<span::Span>| span.map(|span| span.0).unwrap_or_default();
            let (first_token, per_token) = (of(pace.first_token), of(pace.per_token));
            deployment = deployment.pace(Pace { first_token, per_token });
        }
        if let Some(to) = text.spillover {
            if !names.contains(to.get_ref()) || to.get_ref() == text.name.get_ref() {
                let known = names.join(", ");
                self.wrong(&to, &format!("is no other deployment of this resource ({known})"));
            }
            deployment = deployment.spillover(to.into_inner());
        }
        if let Some(silence) = text.keepalive {
            deployment = deployment.keepalive(silence.0);
        }
        if text.filters_prompts {
            deployment = deployment.filters_prompts();
        }
        Some(if text.hides_throttles { deployment.hides_throttles() } else { deployment })
    }

    /// A literal key, or the contents of what `env:` or `file:` refer to.
    fn secret(&mut self, text: &Spanned<String>) -> String {
        let stated = text.get_ref();
        let read = if let Some(name) = stated.strip_prefix("env:") {
            env::var(name).map_err(|_| format!("the variable {name} is not set: set it"))
        } else if let Some(path) = stated.strip_prefix("file:") {
            files::read_text(path.as_ref(), files::MAX_FILE_BYTES, files::PATIENCE)
                .map(|secret| secret.trim_end().to_owned())
                .map_err(|error| format!("the file {path} cannot be read: {error}"))
        } else {
            Ok(stated.clone())
        };
        let fault = match &read {
            Ok(secret) if secret.is_empty() => "is empty: remove it to require no key",
            Ok(_) => "",
            Err(problem) => problem,
        };
        if !fault.is_empty() {
            let fault = fault.to_owned();
            self.wrong(text, &fault);
        }
        read.unwrap_or_default()
    }
}

fn is_label(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(legal)
}

#[cfg(test)]
mod tests;
