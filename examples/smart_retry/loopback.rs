//! The emulated resources behind loopback sockets, and the stacks that are run against them.

use std::{error::Error, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::HeaderValue, response::Parts};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use spillover_emulator::{Deployment, Emulator, Pace, Ptu, Resource, Serving, Standard};
use tokio::{net::TcpListener, time::Instant};
use tower::{Layer, Service, ServiceExt};
use tower_spillover::{Backend, BackendPool, ConfigError, RegionRotateLayer, SmartFallbackLayer};

use crate::{
    Failure,
    account::{Account, Run},
};

/// Three emulated resources: a PTU and Standard in one region, Standard alone in two more.
pub(crate) struct Loopback {
    emulator: Emulator,
    servings: Vec<Serving>,
}

/// The rule that a stack follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// This library: the PTU, and a pool of Standard regions to spill to.
    Spillover,
    /// The reference script: two deployments of one resource, and no memory.
    Reference,
}

/// A stack with its state; sends one request and reports how it ended.
pub(crate) type Ask = Arc<dyn Fn(Request<Full<Bytes>>) -> Asking + Send + Sync>;

type Asking = Pin<Box<dyn Future<Output = Account> + Send>>;

impl Loopback {
    /// Starts the emulator, all quota unused. The quotas of Standard are in the order of
    /// [`BACKENDS`].
    pub(crate) async fn start(ptu: Ptu, standard: [Standard; 3], pace: Pace) -> io::Result<Self> {
        let [east, sweden, japan] = standard.map(|quota| {
            Deployment::standard(STANDARD_DEPLOYMENT, quota).model("gpt-4o").pace(pace)
        });
        let ptu = Deployment::ptu(PTU_DEPLOYMENT, ptu).model("gpt-4o").pace(pace);
        let resource = |[name, region, key]: [&str; 3]| Resource::new(name).region(region).key(key);
        let emulator = Emulator::new([
            resource(RESOURCES[0]).deployment(ptu).deployment(east),
            resource(RESOURCES[1]).deployment(sweden),
            resource(RESOURCES[2]).deployment(japan),
        ]);
        let mut servings = Vec::new();
        for [name, ..] in RESOURCES {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            servings.push(emulator.serve(name, listener));
        }
        Ok(Self { emulator, servings })
    }

    /// A stack without any state so far.
    pub(crate) fn stack(&self, policy: Policy, max_wait: Duration) -> Result<Ask, ConfigError> {
        match policy {
            Policy::Spillover => self.spillover(max_wait),
            Policy::Reference => self.reference(max_wait),
        }
    }

    fn spillover(&self, max_wait: Duration) -> Result<Ask, ConfigError> {
        let backend = |index: usize, resource: usize| {
            let endpoint = self.servings[resource].endpoint();
            Ok(Backend::new(BACKENDS[index], endpoint)?.api_key(RESOURCES[resource][2]))
        };
        let ptu = BackendPool::new([backend(0, 0)?.deployment(PTU_DEPLOYMENT)])?;
        let standard = BackendPool::new([
            backend(1, 0)?.deployment(STANDARD_DEPLOYMENT),
            backend(2, 1)?.deployment(STANDARD_DEPLOYMENT).weight(2),
            backend(3, 2)?.deployment(STANDARD_DEPLOYMENT).priority(2),
        ])?;
        let layer =
            SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(standard))
                .max_wait(max_wait);
        Ok(asker(layer.layer(client())))
    }

    fn reference(&self, max_wait: Duration) -> Result<Ask, ConfigError> {
        let layer = SmartFallbackLayer::deployments(PTU_DEPLOYMENT, STANDARD_DEPLOYMENT)?
            .names(BACKENDS[0], BACKENDS[1])
            .max_wait(max_wait)
            .forgetful();
        Ok(asker(layer.layer(client())))
    }

    /// A chat request of exactly these costs, addressed and authorized as the script does it: to
    /// the first resource. A stack that goes elsewhere has to replace the key.
    pub(crate) fn request(&self, prompt: u64, completion: u64) -> Request<Full<Bytes>> {
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"Go on."}}],"max_tokens":{completion}}}"#
        );
        Request::post(format!(
            "{}/openai/deployments/{PTU_DEPLOYMENT}/chat/completions?api-version=2024-02-01",
            self.servings[0].endpoint()
        ))
        .header("content-type", "application/json")
        .header("api-key", HeaderValue::from_static(RESOURCES[0][2]))
        .header("x-emulator-prompt-tokens", prompt)
        .header("x-emulator-completion-tokens", completion)
        .body(Full::from(body))
        .expect("a socket address and constant headers make a request")
    }

    /// Compares the clients' results with the emulator's counters.
    pub(crate) fn check(&self, run: &Run) -> Result<(), Failure> {
        let stats = self.emulator.stats();
        if stats.misplaced + stats.unauthorized + stats.unrouted > 0 {
            return Err(format!(
                "{} policy: {} keys went to a resource that they do not belong to, {} requests \
                 were unauthorized, {} went nowhere",
                run.policy, stats.misplaced, stats.unauthorized, stats.unrouted
            )
            .into());
        }
        if run.failed + run.lost() > 0 {
            let example = run.problem.as_deref().unwrap_or("no response and no error");
            return Err(format!(
                "{} policy: {} requests failed and {} were lost: {example}",
                run.policy,
                run.failed,
                run.lost()
            )
            .into());
        }
        let sites = [(0, PTU_DEPLOYMENT), (0, STANDARD_DEPLOYMENT), (1, STANDARD_DEPLOYMENT)];
        for (name, (resource, deployment)) in
            BACKENDS.iter().zip(sites.into_iter().chain([(2, STANDARD_DEPLOYMENT)]))
        {
            let seen = stats.of(RESOURCES[resource][0], deployment);
            let told = run.attempts_on(name).unwrap_or_default();
            if (seen.attempts, seen.ok, seen.throttled) != (told.all, told.ok, told.throttled) {
                return Err(format!(
                    "{} policy: {name} counted {} attempts, {} ok, {} refused, its clients {told:?}",
                    run.policy, seen.attempts, seen.ok, seen.throttled
                )
                .into());
            }
        }
        Ok(())
    }
}

impl Policy {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Spillover => "spillover",
            Self::Reference => "reference",
        }
    }

    /// The backends that a run can reach.
    pub(crate) fn backends(self) -> &'static [&'static str] {
        match self {
            Self::Spillover => &BACKENDS,
            Self::Reference => &BACKENDS[..2],
        }
    }

    /// A run of which nothing is known yet.
    pub(crate) fn run(self) -> Run {
        Run::new(self.name(), self.backends().iter().copied())
    }
}

/// The client that everything goes through. One HTTP/2 connection for each resource: bursts must
/// not be measured by how many sockets a process may have.
fn client() -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).http2_only(true).build(connector)
}

fn asker<S, R>(stack: S) -> Ask
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + Sync + 'static,
    S::Error: Error + Send,
    S::Future: Send,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Error + Send,
{
    Arc::new(move |request| Box::pin(ask(stack.clone(), request)))
}

/// Sends `request` and reads the answer to its end.
async fn ask<S, B, R>(stack: S, request: Request<B>) -> Account
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Error,
    R: Body,
    R::Error: Error,
{
    let begun = Instant::now();
    let mut account = Account::default();
    match exchange(stack, request).await {
        Ok(head) => {
            account.note(&head);
            if !matches!(head.status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS) {
                account.problem = Some(format!("status {}", head.status));
            }
        }
        Err(problem) => account.problem = Some(problem),
    }
    account.took = begun.elapsed();
    account
}

/// The head of an answer whose body arrived too.
async fn exchange<S, B, R>(stack: S, request: Request<B>) -> Result<Parts, String>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Error,
    R: Body,
    R::Error: Error,
{
    let response = stack.oneshot(request).await.map_err(|error| chain(&error))?;
    let (head, body) = response.into_parts();
    body.collect().await.map_err(|error| chain(&error))?;
    Ok(head)
}

/// An error with everything that caused it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The names of the backends: the PTU, then the Standard regions.
pub(crate) const BACKENDS: [&str; 4] = ["ptu-east", "eastus", "sweden", "japan"];

/// Name, region and key of the resources. The keys open nothing but the emulator.
const RESOURCES: [[&str; 3]; 3] = [
    ["contoso-east", "East US", "emulated-key-east"],
    ["contoso-sweden", "Sweden Central", "emulated-key-sweden"],
    ["contoso-japan", "Japan East", "emulated-key-japan"],
];
const PTU_DEPLOYMENT: &str = "gpt-4o-ptu";
const STANDARD_DEPLOYMENT: &str = "gpt-4o";
