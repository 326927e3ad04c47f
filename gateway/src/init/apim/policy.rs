//! Reads the targets of a policy's requests, and their keys.

use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};

use super::{elements, expressions};

/// A policy, or a policy fragment.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) targets: Vec<Target>,
    /// Whether it authenticates with a managed identity, with the id of a user-assigned one.
    pub(super) managed_identity: Option<Option<String>>,
    pub(super) left_out: Vec<String>,
    /// The ids of the fragments that it includes.
    included: Vec<String>,
    /// The names of the fragments that were added, without folder and extension.
    added: Vec<String>,
}

/// A target of requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) place: Place,
    /// The value of `api-key` that is set with it.
    pub(super) key: Option<String>,
    /// The deployment in the requests that the enclosing branch handles.
    pub(super) deployment: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Address(String),
    /// A backend entity, by its id.
    Backend(String),
}

impl Policy {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let text = expressions::escaped(text.trim_start_matches('\u{feff}'));
        let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
        let document = Document::parse_with_options(&text, options)
            .map_err(|error| format!("is not a policy in XML: {error}"))?;
        let mut policy = Self::default();
        for element in document.descendants().filter(Node::is_element) {
            policy.element(element);
        }
        Ok(policy)
    }

    /// Adds the contents of a fragment of this policy, read from `file`.
    pub(super) fn add(&mut self, file: &Path, fragment: Self) {
        self.targets.extend(fragment.targets);
        self.left_out.extend(fragment.left_out);
        self.managed_identity = self.managed_identity.take().or(fragment.managed_identity);
        self.included.extend(fragment.included);
        let name = file.file_stem().unwrap_or_default();
        self.added.push(name.to_string_lossy().into_owned());
    }

    /// The ids of the included fragments that were not added.
    ///
    /// A fragment's XML does not contain its id, so the file's name decides which one it is. Files
    /// with other names are taken to be the rest if there are enough of them.
    pub(super) fn missing_fragments(&self) -> Vec<&str> {
        let is_of = |id: &str, name: &str| name.eq_ignore_ascii_case(id);
        let mut missing: Vec<&str> = Vec::new();
        for id in &self.included {
            let is_added = self.added.iter().any(|name| is_of(id, name));
            if !is_added && !missing.iter().any(|other| is_of(id, other)) {
                missing.push(id);
            }
        }
        let is_unassigned = |name: &&String| !self.included.iter().any(|id| is_of(id, name));
        if self.added.iter().filter(is_unassigned).count() >= missing.len() {
            missing.clear();
        }
        missing
    }

    fn element(&mut self, element: Node<'_, '_>) {
        let attribute =
            |name: &str| element.attribute(name).map(str::trim).filter(|it| !it.is_empty());
        match element.tag_name().name() {
            "set-backend-service" => {
                let place = match (attribute("backend-id"), attribute("base-url")) {
                    (Some(id), _) if !is_expression(id) => Place::Backend(id.to_owned()),
                    (_, Some(url)) if !is_expression(url) => Place::Address(url.to_owned()),
                    // It is constructed from variables, which are read where they are set.
                    _ => return,
                };
                self.target(element, place);
            }
            "set-variable" => {
                let (name, value) =
                    (attribute("name").unwrap_or_default(), attribute("value").unwrap_or_default());
                let name = name.to_ascii_lowercase();
                let is_about = |words: &[&str]| words.iter().any(|word| name.contains(word));
                if is_expression(value) || !is_about(&["url", "endpoint", "backend"]) {
                    return;
                }
                let is_address = value.starts_with("http://") || value.starts_with("https://");
                if is_address || expressions::named_value(value).is_some() {
                    self.target(element, Place::Address(value.to_owned()));
                } else if name.contains("backend") && is_id(value) {
                    self.target(element, Place::Backend(value.to_owned()));
                }
            }
            "authentication-managed-identity" => {
                self.managed_identity =
                    Some(attribute("client-id").filter(|id| !is_expression(id)).map(str::to_owned));
            }
            "include-fragment" => {
                self.included.push(attribute("fragment-id").unwrap_or_default().to_owned());
            }
            name => {
                if let Some(text) = elements::left_out(name, element) {
                    self.left_out.push(text);
                }
            }
        }
    }

    fn target(&mut self, element: Node<'_, '_>, place: Place) {
        let key = key_beside(element);
        let name = match &place {
            Place::Backend(id) => id.clone(),
            Place::Address(text) => expressions::named_value(text).unwrap_or_default().to_owned(),
        };
        let conditions = element.ancestors().filter_map(|branch| branch.attribute("condition"));
        let deployment = conditions.filter_map(deployment_in).next();
        let target = Target { name, place, key, deployment };
        if !self.targets.contains(&target) {
            self.targets.push(target);
        }
    }
}

/// The `api-key` set in the same branch, or in an enclosing one.
fn key_beside(element: Node<'_, '_>) -> Option<String> {
    element.ancestors().skip(1).find_map(|branch| {
        let header = branch.children().find(|child| {
            let name = child.attribute("name").unwrap_or_default();
            child.has_tag_name("set-header") && name.eq_ignore_ascii_case("api-key")
        });
        let value = header?.children().find(|child| child.has_tag_name("value"))?;
        let text = value.text()?.trim().to_owned();
        (!text.is_empty() && !is_expression(&text)).then_some(text)
    })
}

/// The deployment in a condition about the path of a request: `...StartsWith("/deployments/gpt-4o/")`.
fn deployment_in(condition: &str) -> Option<String> {
    let (_, rest) = condition.split_once("deployments/")?;
    let name: String = rest.chars().take_while(|c| !"/\"'\\&?)".contains(*c)).collect();
    is_id(&name).then_some(name)
}

/// Whether a text could be the id of a backend: not a number, and not a sentence.
fn is_id(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_expression(text: &str) -> bool {
    text.starts_with('@')
}

const MAX_NODES: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_with_their_urls_and_keys_are_targets() {
        let fragment = r#"<fragment><choose>
            <when condition="@(context.Variables.GetValueOrDefault<int>("urlId") == 1)">
              <set-variable name="url" value="{{aoai-eastus}}" />
              <set-header name="api-key" exists-action="override"><value>{{aoai-eastus-key}}</value></set-header>
            </when>
            <when condition="@(context.Variables.GetValueOrDefault<int>("urlId") == 2)">
              <set-variable name="url" value="https://sweden.openai.azure.com/" />
              <set-header name="api-key" exists-action="override"><value>a-secret</value></set-header>
            </when>
            <otherwise><set-variable name="urlId" value="@(2)" /></otherwise></choose></fragment>"#;
        let policy = Policy::read(fragment).expect("it is a fragment");
        let found: Vec<_> =
            policy.targets.iter().map(|it| (&*it.name, it.key.as_deref())).collect();
        assert_eq!(found, [("aoai-eastus", Some("{{aoai-eastus-key}}")), ("", Some("a-secret"))]);
        assert!(Policy::read("not xml").is_err());
        let by_path = r#"<when condition="@(path.ToLower().StartsWith("/deployments/gpt-4o/"))">
            <set-backend-service backend-id="lb-gpt-4o" /></when>"#;
        let policy = Policy::read(by_path).expect("it is XML");
        assert_eq!(policy.targets[0].deployment.as_deref(), Some("gpt-4o"));
    }

    #[test]
    fn a_fragment_that_was_not_passed_is_missing_whichever_others_were() {
        let including = |ids: &[&str]| {
            let include = |id: &&str| format!(r#"<include-fragment fragment-id="{id}" />"#);
            let included: String = ids.iter().map(include).collect();
            Policy::read(&format!("<policies>{included}</policies>")).expect("it is a policy")
        };
        let mut policy = including(&["keys", "Targets", "limits", "keys"]);
        assert_eq!(policy.missing_fragments(), ["keys", "Targets", "limits"]);
        policy.add(Path::new("fragments/targets.xml"), including(&[]));
        assert_eq!(policy.missing_fragments(), ["keys", "limits"]);
        policy.add(Path::new("fragment-1.xml"), including(&[]));
        assert_eq!(policy.missing_fragments(), ["keys", "limits"], "it may be either");
        policy.add(Path::new("fragment-2.xml"), including(&["targets", "nested"]));
        assert_eq!(policy.missing_fragments(), ["keys", "limits", "nested"]);
        policy.add(Path::new("fragment-3.xml"), including(&[]));
        assert!(policy.missing_fragments().is_empty(), "as many as are included");
    }
}
