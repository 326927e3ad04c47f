//! Two deployments of one resource, which are no pools, held to the resource of what they refer to.
//~ `DeploymentLayer` does not say which resources it sends requests to
//~ a tier that keeps requests with a resource is a `RegionRotateLayer`

use tower_spillover::{SmartFallbackLayer, Sticky};

fn main() {
    let tiers = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o").expect("two names");
    drop(tiers.sticky(Sticky::new()));
}
