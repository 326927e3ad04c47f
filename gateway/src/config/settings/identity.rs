//! Who clients are, besides their keys: by tokens of an issuer, by certificates of an authority.

use std::fmt;

/// Which tokens clients may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub issuer: Issuer,
    /// Whom they have to be for: one of these.
    pub audience: Vec<String>,
    /// Whether the issuer's documents may come without TLS.
    pub allow_http: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// An Entra tenant, by its id. The authority has no slash at its end.
    Tenant { id: String, authority: String },
    /// Another OpenID provider, by its URL.
    OpenId(String),
}

/// What makes a client recognized besides its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    pub subjects: Vec<String>,
    pub certificates: Vec<CertificateName>,
}

/// A name in a certificate. The same text of another kind is another name: an authority that lets its
/// clients choose names of one kind does not let them choose those of the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateName {
    Uri(String),
    /// In lower case.
    Dns(String),
    Common(String),
}

impl CertificateName {
    /// As it is configured: a URI, a DNS name, or `CN=` and a common name.
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
    /// What it calls itself.
    pub fn name(&self) -> String {
        match self {
            Self::Tenant { id, authority } => format!("{authority}/{id}/v2.0"),
            Self::OpenId(url) => url.clone(),
        }
    }

    /// What its tokens may call it. Entra's of version 1.0, which an application gets by default, name
    /// the issuer of before.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.name()];
        if let Self::Tenant { id, authority } = self {
            let is_china = authority.ends_with(".cn");
            let host = if is_china { "sts.chinacloudapi.cn" } else { "sts.windows.net" };
            names.push(format!("https://{host}/{id}/"));
        }
        names
    }

    /// Where it says where its keys are.
    pub fn discovery(&self) -> String {
        let name = self.name();
        format!("{}/.well-known/openid-configuration", name.trim_end_matches('/'))
    }
}

impl Identities {
    /// Whether a token can have them.
    pub fn has_claims(&self) -> bool {
        !(self.roles.is_empty() && self.groups.is_empty() && self.subjects.is_empty())
    }
}
