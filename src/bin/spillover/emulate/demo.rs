//! What is emulated when nobody says what: a PTU and three regions.

use std::time::Duration;

use tower_spillover::emulator::{Deployment, Pace, Ptu, Resource, Standard};

use super::file::{Place, Wanted, WantedResource};

/// Small enough that a few requests a second fill the PTU, and all of them named alike, so that one
/// path fits everywhere.
pub(super) fn wanted() -> Wanted {
    let pace =
        Pace { first_token: Duration::from_millis(150), per_token: Duration::from_millis(5) };
    let ptu = Deployment::ptu(DEPLOYMENT, Ptu::new(1_500.0).bucket_seconds(2.0)).pace(pace);
    let mut resources = vec![resource("contoso-ptu", "East US", ptu)];
    for (name, region) in REGIONS {
        let standard = Deployment::standard(DEPLOYMENT, Standard::tokens_per_minute(60_000));
        resources.push(resource(name, region, standard.pace(pace)));
    }
    Wanted { seed: 0, resources }
}

fn resource(name: &str, region: &str, deployment: Deployment) -> WantedResource {
    WantedResource {
        place: Place {
            name: name.to_owned(),
            region: region.to_owned(),
            listen: None,
            deployments: vec![DEPLOYMENT.to_owned()],
        },
        resource: Resource::new(name).region(region).deployment(deployment),
        scripts: Vec::new(),
    }
}

const DEPLOYMENT: &str = "gpt-4o";
const REGIONS: [(&str, &str); 3] = [
    ("contoso-eastus2", "East US 2"),
    ("contoso-sweden", "Sweden Central"),
    ("contoso-france", "France Central"),
];
