//! The resources that backends are on, identified by their endpoints.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{hash::fnv1a, random::split_mix};

/// The backends behind a layer, with their resources.
#[derive(Clone, Debug, Default)]
pub struct Residents {
    /// Pool by pool.
    pools: Vec<Vec<Resident>>,
}

/// A backend.
#[derive(Clone, Debug)]
struct Resident {
    name: Arc<str>,
    resource: Arc<str>,
    /// The hash of the resource.
    hash: u64,
}

impl Residents {
    /// The backends of one pool by name and resource, in order of preference.
    pub(crate) fn new(backends: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Self {
        let resident = |(name, resource): (_, Arc<str>)| {
            let hash = resource_hash(&resource);
            Resident { name, resource, hash }
        };
        Self { pools: vec![backends.into_iter().map(resident).collect()] }
    }

    /// Appends `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.pools.extend(others.pools);
        self
    }

    pub(crate) fn holds(&self, resource: &str) -> bool {
        self.all().any(|it| *it.resource == *resource)
    }

    /// The resource with this [hash], if there are backends on it.
    pub(crate) fn hashed(&self, hash: u64) -> Option<&Arc<str>> {
        self.all().find(|it| it.hash == hash).map(|it| &it.resource)
    }

    /// Whether there are backends on any other resource.
    pub(crate) fn holds_others(&self, resource: &str) -> bool {
        self.all().any(|it| *it.resource != *resource)
    }

    /// The resource of the backend with this name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<str>> {
        self.all().find(|it| *it.name == *name).map(|it| Arc::clone(&it.resource))
    }

    /// The backends on the resource of the one with this name, if it exists, or else all.
    pub(crate) fn beside(&self, name: Option<&str>) -> Self {
        let Some(resource) = name.and_then(|name| self.named(name)) else { return self.clone() };
        let on_it = |pool: &Vec<Resident>| {
            pool.iter().filter(|it| it.resource == resource).cloned().collect()
        };
        Self { pools: self.pools.iter().map(on_it).collect() }
    }

    /// The hashes of the resources, each once, as [`Sticky::resources_of`](crate::Sticky::resources_of)
    /// returns them.
    pub fn resources(&self) -> HashSet<u64> {
        self.all().map(|it| it.hash).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Resident> {
        self.pools.iter().flatten()
    }
}

/// Which resources several stacks have in common, to find the homes of many clients; see
/// [`Home::among`](crate::sticky::Home::among).
#[derive(Clone, Debug)]
pub struct CommonResources {
    /// Those of the first stack.
    candidates: Vec<Candidate>,
    stacks: usize,
}

#[derive(Clone, Debug)]
struct Candidate {
    resource: Arc<str>,
    hash: u64,
    /// How many stacks have it, and how many of their pools.
    shares: (usize, usize),
}

impl CommonResources {
    /// Compares `stacks`, in order of preference.
    pub fn of<'a>(stacks: impl IntoIterator<Item = &'a Residents>) -> Self {
        let mut stacks = stacks.into_iter().peekable();
        let first = stacks.peek().copied();
        let (mut shares, mut count) = (HashMap::<&str, (usize, usize)>::new(), 0);
        for stack in stacks {
            count += 1;
            let mut in_stack = HashSet::new();
            for pool in &stack.pools {
                let in_pool: HashSet<&str> = pool.iter().map(|it| &*it.resource).collect();
                in_pool.iter().for_each(|of| shares.entry(of).or_default().1 += 1);
                in_stack.extend(in_pool);
            }
            in_stack.iter().for_each(|of| shares.entry(of).or_default().0 += 1);
        }
        let candidate = |it: &Resident| Candidate {
            resource: Arc::clone(&it.resource),
            hash: it.hash,
            shares: shares[&*it.resource],
        };
        let candidates = first.into_iter().flat_map(Residents::all).map(candidate).collect();
        Self { candidates, stacks: count }
    }

    /// The resource that `key` maps to, among those of the first stack.
    ///
    /// It is one that most of the stacks have and, of these, most of their pools, so that whatever is
    /// kept there can be used with most of the models, and can spill. If several qualify, rendezvous
    /// hashing takes one by name: each has its share of the keys, a new one takes over its own share,
    /// and no other moves. Weights and priorities do not count, since storage needs no deployment.
    pub(crate) fn home(&self, key: u64) -> Option<&Arc<str>> {
        let score = |of: &&Candidate| (of.shares, split_mix(key ^ of.hash));
        self.candidates.iter().max_by_key(score).map(|of| &of.resource)
    }

    /// Whether all stacks have the resource.
    pub(crate) fn all_have(&self, resource: &str) -> bool {
        let found = self.candidates.iter().find(|of| *of.resource == *resource);
        found.is_some_and(|of| of.shares.0 == self.stacks)
    }
}

/// What represents a resource in all processes.
pub(crate) fn resource_hash(resource: &str) -> u64 {
    fnv1a([resource.as_bytes()])
}

/// The name of the resource with this authority and base path.
///
/// One Azure resource has a host in each of several domains, and serves the same objects under all of
/// them. For any other endpoint, such as a gateway's, the whole address counts.
pub(crate) fn resource(authority: &str, base: &str) -> Arc<str> {
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(":443").unwrap_or(&authority);
    match DOMAINS.iter().find_map(|domain| authority.strip_suffix(domain)) {
        Some(name) => format!("{name}{}", DOMAINS[0]).into(),
        None => format!("{authority}{base}").into(),
    }
}

/// Azure page "Azure OpenAI in Foundry Models v1 API", and the older domain of Azure AI services.
const DOMAINS: [&str; 3] =
    [".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_the_same_in_each_of_its_domains() {
        for authority in [
            "contoso.openai.azure.com",
            "Contoso.OpenAI.azure.com:443",
            "contoso.services.ai.azure.com",
            "contoso.cognitiveservices.azure.com",
        ] {
            for base in ["", "/api/projects/p"] {
                assert_eq!(&*resource(authority, base), "contoso.openai.azure.com");
            }
        }
        assert_ne!(
            resource("fabrikam.openai.azure.com", ""),
            resource("contoso.openai.azure.com", "")
        );
    }

    #[test]
    fn behind_a_gateway_the_base_path_distinguishes_resources() {
        assert_ne!(resource("apim.net", "/east"), resource("apim.net", "/west"));
        assert_ne!(resource("127.0.0.1:8080", ""), resource("127.0.0.1:8081", ""));
        assert_eq!(&*resource("APIM.net", "/East"), "apim.net/East");
    }
}
