//! Emulated Azure resources on loopback, and backends for them.

use std::{collections::BTreeMap, net::SocketAddr};

use spillover_emulator::{Counts, Deployment, Emulator, Fault, Ptu, Resource, Serving, Standard};
use tokio::net::TcpListener;
use tower_spillover::{Backend, BackendPool};

pub const PTU: &str = "gpt-4o-ptu";
pub const STANDARD: &str = "gpt-4o";

/// Resources with one socket each. Backends are called `RESOURCE/DEPLOYMENT`.
pub struct Azure {
    pub emulator: Emulator,
    servings: BTreeMap<String, Serving>,
}

impl Azure {
    /// Starts resources with one key, PTU and Standard deployment each, which refuse only what a
    /// test scripts.
    pub async fn open(resources: &[&str]) -> Self {
        Self::with(resources, |resource| {
            resource
                .deployment(Deployment::ptu(PTU, Ptu::new(1e8)))
                .deployment(Deployment::standard(STANDARD, Standard::unlimited()))
        })
        .await
    }

    pub async fn with(resources: &[&str], build: impl Fn(Resource) -> Resource) -> Self {
        let built = resources.iter().map(|name| build(Resource::new(*name).key(key_of(name))));
        let emulator = Emulator::new(built).record();
        let mut servings = BTreeMap::new();
        for name in resources {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            servings.insert((*name).to_owned(), emulator.serve(name, listener));
        }
        Self { emulator, servings }
    }

    pub fn addr(&self, resource: &str) -> SocketAddr {
        self.servings[resource].addr()
    }

    pub fn endpoint(&self, resource: &str) -> String {
        self.servings[resource].endpoint()
    }

    /// Closes all connections of a resource and listens again at the same address.
    pub async fn restart(&mut self, resource: &str) {
        let serving = self.servings.remove(resource).expect("a resource");
        let addr = serving.addr();
        serving.shutdown().await;
        let listener = TcpListener::bind(addr).await.expect("the port is free again");
        self.servings.insert(resource.to_owned(), self.emulator.serve(resource, listener));
    }

    /// The backend called `RESOURCE/DEPLOYMENT`.
    pub fn backend(&self, name: &str) -> Backend {
        let (resource, _) = name.split_once('/').expect("RESOURCE/DEPLOYMENT");
        backend_at(name, self.addr(resource))
    }

    pub fn pool<const N: usize>(&self, names: [&str; N]) -> BackendPool {
        BackendPool::new(names.map(|name| self.backend(name))).expect("a valid pool")
    }

    pub fn script<const N: usize>(&self, name: &str, faults: [Fault; N]) {
        let (resource, deployment) = name.split_once('/').expect("RESOURCE/DEPLOYMENT");
        self.emulator.script(resource, deployment, faults);
    }

    pub fn counts(&self, name: &str) -> Counts {
        let (resource, deployment) = name.split_once('/').expect("RESOURCE/DEPLOYMENT");
        self.emulator.stats().of(resource, deployment)
    }

    /// The number of requests that reached a deployment.
    pub fn attempts(&self) -> u64 {
        self.emulator.stats().total().attempts
    }
}

/// The backend called `RESOURCE/DEPLOYMENT`, reached at `addr`.
pub fn backend_at(name: &str, addr: SocketAddr) -> Backend {
    let (resource, deployment) = name.split_once('/').expect("RESOURCE/DEPLOYMENT");
    Backend::new(name, format!("http://{addr}"))
        .expect("a valid endpoint")
        .deployment(deployment)
        .api_key(key_of(resource))
}

pub fn key_of(resource: &str) -> String {
    format!("key-of-{resource}")
}

/// A refusal with a hint of `ms` milliseconds.
pub fn refused_for(ms: u64) -> Fault {
    Fault::status(429).header("retry-after-ms", &ms.to_string())
}
