//! Reads references to secrets, never literal secrets.

use super::{Secret, parse_context::reason, toml::Value};

impl<'a> Value<'a> {
    /// A secret by reference, trimmed. Problems are reported without repeating the text, which may
    /// be the secret itself.
    pub(super) fn secret(&self) -> Option<Secret> {
        let text = self.text()?;
        let found = match text.split_once(':') {
            Some(("env", name)) => self.variable(name.trim())?,
            Some(("file", path)) => self.secret_file(path.trim())?,
            _ => {
                self.report(
                    "is neither env:NAME nor file:PATH; keep the secret out of this file and \
                     say where it is",
                );
                return None;
            }
        };
        Some(Secret::new(found.trim().to_owned()))
    }

    /// The contents of the file at a path.
    pub(super) fn file(&self) -> Option<Vec<u8>> {
        let path = self.name()?;
        self.read(path.strip_prefix("file:").unwrap_or(path))
    }

    fn variable(&self, name: &str) -> Option<String> {
        let value = Some(name)
            .filter(|name| !name.is_empty() && !name.contains(['=', '\0']))
            .and_then(|name| self.context.variable(name));
        match value {
            None => self.report(format!("the variable {name:?} is not set; set it to the secret")),
            Some(value) if value.trim().is_empty() => {
                self.report(format!("the variable {name:?} is empty; set it to the secret"));
            }
            Some(value) => return Some(value),
        }
        None
    }

    fn secret_file(&self, path: &str) -> Option<String> {
        let bytes = self.read(path)?;
        match String::from_utf8(bytes) {
            Err(_) => self.report(format!("{path:?} is not text; write the secret as UTF-8")),
            Ok(text) if text.trim().is_empty() => {
                self.report(format!("{path:?} is empty; write the secret into it"));
            }
            Ok(text) => return Some(text),
        }
        None
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let bytes = self.context.read(path);
        if let Err(error) = &bytes {
            let reason = reason(error);
            self.report(format!(
                "{path:?} cannot be read ({reason}); paths are relative to this file"
            ));
        }
        bytes.ok()
    }
}
