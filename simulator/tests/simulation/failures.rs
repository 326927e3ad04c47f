//! Deployments that fail now and then, as seen by callers.

use spillover_simulator::Policy;

use crate::{poisson, run};

#[test]
fn failures_order_the_backends_and_refuse_nobody() {
    for share in [0.01, 0.1] {
        let failing = poisson(0.8).failures(share);
        for policy in [Policy::Gate, Policy::Shared] {
            let report = run(&failing, policy);
            // An attempt on the PTU and one on each of the two best regions fail together.
            let bound = share * share + 0.002;
            assert!(report.refused <= bound, "{policy:?} at {share}: {}", report.refused);
            assert!(report.utilisation > 0.6, "{policy:?} at {share}: {}", report.utilisation);
        }
        // The reference script spills only after a 429.
        let reference = run(&failing, Policy::Reference).refused;
        assert!(reference > share / 2.0, "{reference} at {share}");
    }
}
