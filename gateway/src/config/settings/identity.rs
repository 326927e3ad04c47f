//! Identities of clients other than keys: tokens of an issuer, certificates of an authority.

use std::fmt;

/// Which tokens clients may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub issuer: Issuer,
    /// The accepted audiences; a token needs one of them.
    pub audience: Vec<String>,
    /// Whether the issuer's documents may be fetched without TLS.
    pub allow_http: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// An Entra tenant, by its id. The authority has no trailing slash.
    Tenant { id: String, authority: String },
    /// Another OpenID provider, by its URL.
    OpenId(String),
}

/// What identifies a client other than keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    pub subjects: Vec<String>,
    pub certificates: Vec<CertificateName>,
}

/// A name in a certificate. The same text of another kind is another name: an authority that lets
/// its clients choose names of one kind does not let them choose those of the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateName {
    Uri(String),
    /// In lower case.
    Dns(String),
    Common(String),
}

impl CertificateName {
    /// Parses the configured form: a URI, a DNS name, or `CN=` and a common name.
    pub fn read(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("CN=") {
            return Some(Self::Common(name.to_owned())).filter(|_| !name.is_empty());
        }
        if text.contains("://") {
            return Some(Self::Uri(text.to_owned()));
        }
        let is_dns = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
        text.bytes().all(is_dns).then(|| Self::Dns(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(name) | Self::Dns(name) => f.write_str(name),
            Self::Common(name) => write!(f, "CN={name}"),
        }
    }
}

impl Issuer {
    /// The issuer's own name.
    pub fn name(&self) -> String {
        match self {
            Self::Tenant { id, authority } => format!("{authority}/{id}/v2.0"),
            Self::OpenId(url) => url.clone(),
        }
    }

    /// The names in its tokens. Entra's tokens of version 1.0, an application's default, have the
    /// issuer's previous name.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.name()];
        if let Self::Tenant { id, authority } = self {
            let is_china = authority.ends_with(".cn");
            let host = if is_china { "sts.chinacloudapi.cn" } else { "sts.windows.net" };
            names.push(format!("https://{host}/{id}/"));
        }
        names
    }

    /// The URL of its discovery document.
    pub fn discovery(&self) -> String {
        let name = self.name();
        format!("{}/.well-known/openid-configuration", name.trim_end_matches('/'))
    }
}

impl Identities {
    /// Whether any of them is matched with a token.
    pub fn has_claims(&self) -> bool {
        !(self.roles.is_empty() && self.groups.is_empty() && self.subjects.is_empty())
    }
}
