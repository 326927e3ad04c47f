//! Adds the layer that moves on after a late first token, if configured.

use std::{future::Future, pin::Pin};

use http::Request;
use tower::{Layer, Service, ServiceExt};
use tower_spillover::{FirstTokenLayer, LimitAttemptsLayer, policy::RetryBudget};

use super::{
    classes::never_spilling, error::UpstreamError, request_body::RequestBody, stack::Answer,
};
use crate::config::Model;

/// The layer of a model, if the model or one of its classes has a limit.
pub(super) fn first_token(model: &Model) -> Option<FirstTokenLayer> {
    let own = model.steering.first_token;
    let is_limited =
        |class: &crate::config::Class| class.first_token.is_some_and(|it| it.is_some());
    if own.is_none() && !model.classes.values().any(is_limited) {
        return None;
    }
    let mut layer = FirstTokenLayer::new(own.map(|own| own.limit));
    if let Some(budget) = own.and_then(|own| own.budget) {
        layer = layer.budget(RetryBudget::new(budget.moves, budget.per_success));
    }
    for (name, class) in &model.classes {
        if let Some(limit) = class.first_token {
            layer = layer.class(&**name, limit).class(never_spilling(Some(name)), limit);
        }
    }
    Some(layer)
}

type Sent = Pin<Box<dyn Future<Output = Result<Answer, UpstreamError>> + Send>>;

/// Sends `request` through `tiers` inside `layer`. Boxed, so that requests of other models do not
/// carry the space for two attempts.
pub(super) fn send<S>(
    layer: &FirstTokenLayer,
    limit: Option<LimitAttemptsLayer>,
    tiers: S,
    request: Request<RequestBody>,
) -> Sent
where
    S: Service<Request<RequestBody>, Response = Answer, Error = UpstreamError>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let service = layer.layer(tiers);
    match limit {
        Some(limit) => Box::pin(limit.layer(service).oneshot(request)),
        None => Box::pin(service.oneshot(request)),
    }
}
