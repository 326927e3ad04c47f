//! Writes a draft as TOML.

use std::fmt::Write as _;

use super::draft::{Auth, Backend, Draft, Entra};

/// The complete file, with the parts left out as comments, so that they are not forgotten.
pub(super) fn text(draft: &Draft) -> String {
    let mut text = format!(
        "# Converted from {} by `spillover init`. `spillover check FILE` says what is wrong with it.\n\
         # Every key: docs/configuration.md.\n",
        draft.source
    );
    for (title, lines) in [("Look at:", &draft.remarks), ("Left out:", &draft.left_out)] {
        if !lines.is_empty() {
            let _ = writeln!(text, "#\n# {title}");
            lines.iter().for_each(|line| comment(&mut text, line));
        }
    }
    text.push_str(
        "\n[listen]\naddress = \"127.0.0.1:8080\"   # 0.0.0.0:8080 for clients on other machines\n\
         admin = \"127.0.0.1:9090\"     # /metrics, /-/status and /-/requests, for operators only\n",
    );
    for model in &draft.models {
        let name = quoted(&model.name);
        let _ = writeln!(text, "\n[models.{name}]");
        if !model.aliases.is_empty() {
            let aliases: Vec<_> = model.aliases.iter().map(|alias| quoted(alias)).collect();
            let _ = writeln!(text, "aliases = [{}]", aliases.join(", "));
        }
        let what = match model.ptu.is_empty() {
            true => "if all backends refuse, for the first to reopen",
            false => "for the PTU, before a request goes to Standard",
        };
        let _ = writeln!(text, "max_wait = \"4s\"   # how long a request may wait {what}");
        for (tier, backends) in [("ptu", &model.ptu), ("standard", &model.standard)] {
            for one in backends {
                let _ = writeln!(text, "\n[[models.{name}.{tier}]]");
                backend(&mut text, one);
            }
        }
    }
    clients(&mut text, draft);
    entra(&mut text, draft.entra.as_ref());
    text
}

fn backend(text: &mut String, backend: &Backend) {
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("name", quoted(&backend.name));
    line("endpoint", quoted(&backend.endpoint.url));
    if backend.endpoint.is_plain {
        line("allow_http", "true   # sends keys without TLS".to_owned());
    }
    if let Some(provider) = backend.provider {
        line("provider", quoted(provider));
    }
    match &backend.auth {
        Auth::Key(variable) => line("key", quoted(&format!("env:{variable}"))),
        Auth::Entra => line("auth", quoted("entra")),
        Auth::None => line("auth", quoted("none")),
    }
    for (key, value) in [
        ("deployment", &backend.deployment),
        ("api_version", &backend.api_version),
        ("region", &backend.region),
    ] {
        if let Some(value) = value {
            line(key, quoted(value));
        }
    }
    for (key, value) in [("priority", backend.priority), ("weight", backend.weight)] {
        if let Some(value) = value {
            line(key, value.to_string());
        }
    }
}

fn clients(text: &mut String, draft: &Draft) {
    if draft.clients.is_empty() {
        text.push_str(
            "\n# Everybody who reaches the address above may use it, as it was. Or give clients keys of their own:\n\
             #     [clients.team-a]\n#     keys = [\"env:TEAM_A_KEY\"]\n[clients]\nopen = true\n",
        );
    }
    for client in &draft.clients {
        let _ = writeln!(text, "\n[clients.{}]", client.name);
        let _ = writeln!(text, "keys = [{}]", quoted(&format!("env:{}", client.key)));
        if client.operates {
            text.push_str("may = [\"operate\"]   # may read /metrics, /-/status and /-/requests\n");
        }
    }
}

fn entra(text: &mut String, entra: Option<&Entra>) {
    let Some(entra) = entra else { return };
    text.push_str("\n[entra]\n");
    let _ = match entra {
        Entra::Managed { client_id: None } => writeln!(text, "kind = \"managed\""),
        Entra::Managed { client_id: Some(id) } => {
            writeln!(text, "kind = \"managed\"\nclient_id = {}", quoted(id))
        }
        Entra::Secret { tenant, client_id, secret } => writeln!(
            text,
            "kind = \"secret\"\ntenant = {}\nclient_id = {}\nsecret = {}",
            quoted(tenant),
            quoted(client_id),
            quoted(&format!("env:{secret}"))
        ),
    };
}

/// Writes a line of text as comments of about 100 characters.
fn comment(text: &mut String, line: &str) {
    let mut width = 0;
    text.push_str("#   -");
    for word in line.split_whitespace() {
        if width + word.len() > 92 {
            text.push_str("\n#    ");
            width = 0;
        }
        let _ = write!(text, " {word}");
        width += word.len() + 1;
    }
    text.push('\n');
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(text in any::<String>()) {
            let written = format!("a = {}", super::quoted(&text));
            let read: toml::Table = written.parse().expect("it is TOML");
            prop_assert_eq!(read["a"].as_str(), Some(&*text));
        }
    }
}
