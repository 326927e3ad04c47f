//! Reads the section `[tokens]`: whose tokens clients may use.

use super::{
    Issuer, Tokens,
    toml::{Section, Value},
};

pub(super) fn tokens(mut section: Section<'_>) -> Option<Tokens> {
    let allow_http = section.flag("allow_http", false);
    let tenant = section.get("tenant");
    let issuer = section.get("issuer");
    let authority = section.get("authority");
    let audience = section
        .required("audience", "name the application: \"api://NAME\", its id, or both in a list")
        .and_then(|value| audience(&value));
    let issuer = match (tenant, issuer) {
        (Some(tenant), None) => {
            let authority = match &authority {
                Some(value) => address(value, allow_http)?,
                None => PUBLIC_AUTHORITY,
            };
            let authority = authority.trim_end_matches('/').to_owned();
            tenant_id(&tenant).map(|id| Issuer::Tenant { id, authority })
        }
        (None, Some(issuer)) => {
            if let Some(authority) = &authority {
                authority.report("belongs to `tenant`; remove it, the issuer says where it is");
            }
            address(&issuer, allow_http).map(|issuer| Issuer::OpenId(issuer.to_owned()))
        }
        (Some(_), Some(issuer)) => {
            issuer.report("cannot be combined with `tenant`; remove one of the two");
            None
        }
        (None, None) => {
            section.report("names no issuer; add tenant = \"ID\", or issuer = \"https://...\"");
            None
        }
    };
    section.finish();
    Some(Tokens { issuer: issuer?, audience: audience?, allow_http })
}

/// An issuer's address. What it serves decides who gets in.
fn address<'a>(value: &Value<'a>, allow_http: bool) -> Option<&'a str> {
    let text = value.address()?;
    if !text.starts_with("https://") && !allow_http {
        value.report(
            "would let anyone on the network issue tokens; use https://, or allow_http = true",
        );
        return None;
    }
    Some(text)
}

/// Tokens identify tenants by their ids.
fn tenant_id(value: &Value<'_>) -> Option<String> {
    let text = value.name()?.trim();
    let parts: Vec<&str> = text.split('-').collect();
    let is_id = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !is_id {
        value.report(format!("{text:?} is not the id of a tenant; `az account show` has it"));
    }
    Some(text.to_ascii_lowercase())
}

fn audience(value: &Value<'_>) -> Option<Vec<String>> {
    let names = match value.value {
        toml::de::DeValue::String(_) => vec![value.clone()],
        _ => value.list()?,
    };
    if names.is_empty() {
        value.report("is empty, so every token would be refused; name the application");
    }
    Some(names.iter().filter_map(|value| value.name().map(str::to_owned)).collect())
}

const PUBLIC_AUTHORITY: &str = "https://login.microsoftonline.com";
