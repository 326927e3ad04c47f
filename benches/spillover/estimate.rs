//! The cost of estimating a request from its body, as clients write them.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use http::{HeaderMap, Uri};
use spillover_testing::prompts;
use tower_spillover::gate::cost::{EstimateCost, Head, TokenWeights};

pub(crate) fn bench(criterion: &mut Criterion) {
    let (uri, headers) = (Uri::from_static("/openai/v1/chat/completions"), HeaderMap::new());
    let (head, weights) = (Head::new(&uri, &headers), TokenWeights::new());
    let mut group = criterion.benchmark_group("estimate");
    for (name, body) in prompts::requests() {
        for (layout, text) in [
            ("", body.to_string()),
            (", indented", format!("{body:#}")),
            (", escaped", prompts::ascii(&body)),
        ] {
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(format!("{name}{layout}"), |bencher| {
                bencher.iter(|| weights.estimate(&head, Some(black_box(text.as_bytes()))));
            });
        }
    }
    group.finish();
}
