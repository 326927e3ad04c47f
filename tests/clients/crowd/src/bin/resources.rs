//! Emulated Azure OpenAI resources behind loopback sockets, one port each.

use std::{error::Error, io::Write as _, time::Duration};

use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;
use spillover_emulator::{Deployment, Emulator, Pace, Ptu, Resource, Standard};

/// Prints `NAME URL` of every resource, then `ready`; serves until it is killed.
#[derive(Debug, Parser)]
struct Args {
    scene: Scene,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scene {
    /// A PTU, two Standard regions, and two deployments that refuse early.
    Clients,
    /// Six regions of which the first is limited to almost nothing.
    Walk,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let resources = match Args::parse().scene {
        Scene::Clients => clients(),
        Scene::Walk => walk(),
    };
    let names: Vec<String> = resources.iter().map(|(name, _)| (*name).to_owned()).collect();
    let emulator = Emulator::new(resources.into_iter().map(|(_, resource)| resource)).seed(7);
    let mut servings = Vec::new();
    for name in names {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{name} http://{}", listener.local_addr()?);
        servings.push(emulator.serve(&name, listener));
    }
    println!("ready");
    std::io::stdout().flush()?;
    std::future::pending::<()>().await;
    Ok(())
}

type Named = (&'static str, Resource);

fn clients() -> Vec<Named> {
    let pace = Pace { first_token: Duration::from_millis(5), per_token: Duration::from_millis(2) };
    let free =
        |name: &str| Deployment::standard(name, Standard::unlimited()).model("gpt-4o").pace(pace);
    let ptu = |name: &str, rate: f64, depth: f64| {
        Deployment::ptu(name, Ptu::new(rate).bucket_seconds(depth)).model("gpt-4o").pace(pace)
    };
    let embeddings = || Deployment::standard("text-embedding-3-small", Standard::unlimited());
    vec![
        (
            "east",
            resource("east", "East US")
                .deployment(ptu("gpt-4o-ptu", 100_000.0, 10.0))
                // A second and a half of refusals after every 5,000 tokens.
                .deployment(ptu("short", 2_000.0, 1.0))
                // The tokens of one request fill it for most of a minute.
                .deployment(Deployment::standard("tiny", Standard::tokens_per_minute(50))),
        ),
        (
            "sweden",
            resource("sweden", "Sweden Central")
                .deployment(free("gpt-4o"))
                .deployment(embeddings()),
        ),
        (
            "japan",
            resource("japan", "Japan East").deployment(free("gpt-4o")).deployment(embeddings()),
        ),
    ]
}

fn walk() -> Vec<Named> {
    let regions = [
        ("eastus", "East US", Standard::tokens_per_minute(1)),
        ("northcentral", "North Central US", Standard::tokens_per_minute(60_000)),
        ("eastus2", "East US 2", Standard::tokens_per_minute(60_000)),
        ("southcentral", "South Central US", Standard::tokens_per_minute(60_000)),
        ("francecentral", "France Central", Standard::tokens_per_minute(60_000)),
        ("westeurope", "West Europe", Standard::tokens_per_minute(60_000)),
    ];
    let pace = Pace { first_token: Duration::from_millis(20), per_token: Duration::from_millis(1) };
    let place = |(name, region, quota): (&'static str, &str, Standard)| {
        let deployment = Deployment::standard("gpt-35-turbo", quota).pace(pace);
        (name, resource(name, region).deployment(deployment))
    };
    regions.into_iter().map(place).collect()
}

fn resource(name: &str, region: &str) -> Resource {
    Resource::new(name).region(region).key(format!("key-{name}"))
}
