//! The state shared by the emulator's handles: resources, active deployments, counters.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, HeaderValue};
use memchr::memmem;

use crate::{
    Fault, Outage, Received, Resource, Stats, clock::Clock, outage::Outages,
    prompt_cache::PromptCache, site::Site, state::Store,
};

#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) clock: Clock,
    pub(crate) places: Vec<Place>,
    pub(crate) unauthorized: AtomicU64,
    pub(crate) misplaced: AtomicU64,
    pub(crate) unrouted: AtomicU64,
    pub(crate) recording: AtomicBool,
    by_name: HashMap<String, usize>,
    owners: Owners,
    seed: AtomicU64,
    serial: AtomicU64,
    received: Mutex<VecDeque<Received>>,
    /// Faults by marker; a request with the marker in its body or a header gets the fault.
    poisons: RwLock<Vec<(String, Fault)>>,
}

impl Registry {
    pub(crate) fn new(resources: Vec<Resource>) -> Self {
        let mut by_name = HashMap::new();
        let mut owners = Owners::default();
        let mut places = Vec::with_capacity(resources.len());
        for (index, resource) in resources.into_iter().enumerate() {
            let twin = by_name.insert(resource.name.to_ascii_lowercase(), index);
            assert!(twin.is_none(), "two resources are called {}", resource.name);
            for key in resource.keys.iter().chain(&resource.tokens) {
                owners.0.entry(key.as_bytes().into()).or_default().push(index);
            }
            places.push(Place::new(resource));
        }
        let registry = Self {
            clock: Clock::start(),
            places,
            unauthorized: AtomicU64::new(0),
            misplaced: AtomicU64::new(0),
            unrouted: AtomicU64::new(0),
            recording: AtomicBool::new(false),
            by_name,
            owners,
            seed: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            received: Mutex::default(),
            poisons: RwLock::default(),
        };
        registry.reseed(0);
        registry
    }

    pub(crate) fn reseed(&self, seed: u64) {
        self.seed.store(seed, Relaxed);
        for (place, site) in self.sites() {
            let own = fingerprint(&[place.name.as_bytes(), b"/", site.name.as_bytes()]);
            site.reseed(seed ^ own);
        }
    }

    /// The index of the resource with the host name `host`, with or without a port.
    pub(crate) fn place_at(&self, host: &str) -> Option<usize> {
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let lower;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            lower.as_str()
        } else {
            host
        };
        let suffix = DOMAINS.iter().find_map(|domain| host.strip_suffix(domain));
        self.by_name.get(suffix.unwrap_or(host)).copied()
    }

    pub(crate) fn site(&self, resource: &str, deployment: &str) -> Option<&Arc<Site>> {
        self.places[self.place_at(resource)?].site(deployment)
    }

    /// Whether `secret` belongs to some resource other than the one at `place`.
    pub(crate) fn is_misplaced(&self, secret: &[u8], place: Option<usize>) -> bool {
        let owners = self.owners.0.get(secret);
        owners.is_some_and(|owners| place.is_none_or(|place| !owners.contains(&place)))
    }

    /// Two numbers unique to each request, the same in every run of one seed.
    pub(crate) fn identity(&self) -> (u64, u64) {
        let serial = self.serial.fetch_add(1, Relaxed);
        (scramble(self.seed.load(Relaxed) ^ scramble(serial)), serial)
    }

    pub(crate) fn add_poison(&self, marker: String, fault: Fault) {
        let mut poisons = self.poisons.write().unwrap_or_else(PoisonError::into_inner);
        poisons.push((marker, fault));
    }

    /// The fault of the first marker that this request contains.
    pub(crate) fn poison(&self, headers: &HeaderMap, body: &[u8]) -> Option<Fault> {
        let poisons = self.poisons.read().unwrap_or_else(PoisonError::into_inner);
        let carried = |marker: &str| {
            let finds = |bytes: &[u8]| memmem::find(bytes, marker.as_bytes()).is_some();
            finds(body) || headers.values().any(|value| finds(value.as_bytes()))
        };
        poisons.iter().find(|(marker, _)| carried(marker)).map(|(_, fault)| fault.clone())
    }

    /// The outages of the resource at `place`.
    pub(crate) fn outages(&self, place: usize) -> Outages<'_> {
        let place = &self.places[place];
        Outages::new(&place.outages, self.seed.load(Relaxed) ^ u64::from(place.tag))
    }

    pub(crate) fn keep(&self, received: Received) {
        let mut kept = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MAX_RECORDED_REQUESTS {
            kept.pop_front();
        }
        kept.push_back(received);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        let kept = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        let entry = |(place, site): (&Place, &Arc<Site>)| {
            let key = (place.name.clone(), site.name.clone());
            (key, site.counts())
        };
        Stats {
            deployments: self.sites().map(entry).collect(),
            unauthorized: self.unauthorized.load(Relaxed),
            misplaced: self.misplaced.load(Relaxed),
            unrouted: self.unrouted.load(Relaxed),
        }
    }

    fn sites(&self) -> impl Iterator<Item = (&Place, &Arc<Site>)> {
        let of = |place: &'_ Place| place.sites.len();
        self.places
            .iter()
            .flat_map(move |place| (0..of(place)).map(move |i| (place, &place.sites[i])))
    }
}

/// Which resources a key or token belongs to. Never printed.
#[derive(Default)]
struct Owners(HashMap<Box<[u8]>, Vec<usize>>);

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// A resource in operation.
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) region_header: Option<HeaderValue>,
    /// Identifies objects that only this resource knows, such as its stored responses.
    pub(crate) tag: u32,
    pub(crate) sites: Vec<Arc<Site>>,
    pub(crate) prompt_cache: Option<PromptCache>,
    pub(crate) store: Store,
    pub(crate) keep_alive: bool,
    pub(crate) http2_streams: Option<u32>,
    outages: Vec<Outage>,
    keys: Vec<String>,
    tokens: Vec<String>,
    by_name: HashMap<String, usize>,
}

impl Place {
    fn new(resource: Resource) -> Self {
        let mut by_name = HashMap::new();
        let mut sites = Vec::with_capacity(resource.deployments.len());
        for (index, deployment) in resource.deployments.into_iter().enumerate() {
            let twin = by_name.insert(deployment.name.clone(), index);
            assert!(twin.is_none(), "two deployments are called {}", deployment.name);
            sites.push(Arc::new(Site::new(deployment)));
        }
        let tag = fingerprint(&[resource.name.as_bytes()]).to_le_bytes();
        let tag = u32::from_le_bytes([tag[0], tag[1], tag[2], tag[3]]);
        Self {
            tag,
            store: Store::new(tag, resource.creations_per_minute, resource.reads_per_minute),
            region_header: HeaderValue::from_str(&resource.region).ok(),
            name: resource.name,
            region: resource.region,
            sites,
            prompt_cache: resource.prompt_cache.map(PromptCache::new),
            keep_alive: resource.keep_alive,
            http2_streams: resource.http2_streams,
            outages: resource.outages,
            keys: resource.keys,
            tokens: resource.tokens,
            by_name,
        }
    }

    pub(crate) fn site(&self, deployment: &str) -> Option<&Arc<Site>> {
        self.by_name.get(deployment).map(|index| &self.sites[*index])
    }

    pub(crate) fn is_open(&self) -> bool {
        self.keys.is_empty() && self.tokens.is_empty()
    }

    pub(crate) fn has_key(&self, secret: &[u8]) -> bool {
        self.keys.iter().any(|key| key.as_bytes() == secret)
    }

    pub(crate) fn has_token(&self, secret: &[u8]) -> bool {
        self.tokens.iter().any(|token| token.as_bytes() == secret)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("name", &self.name)
            .field("region", &self.region)
            .field("sites", &self.sites)
            .finish_non_exhaustive()
    }
}

/// FNV-1a: the same in every run and build.
fn fingerprint(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().copied().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of splitmix64.
pub(crate) fn scramble(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const DOMAINS: [&str; 3] =
    [".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"];
/// How many requests a recording keeps; the oldest are dropped first.
const MAX_RECORDED_REQUESTS: usize = 65_536;
