//! Addresses requests to another deployment of the same resource.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::rewrite::{self, Deployment, RequestReading};
use crate::{ConfigError, TryCloneBody};

/// Addresses requests to another deployment of the same resource: replaces the deployment segment of
/// a classic path, or `model` in the body of a v1 request, and nothing else.
///
/// It is the tier of [`SmartFallbackLayer::deployments`](crate::SmartFallbackLayer::deployments).
#[derive(Clone, Debug)]
pub struct DeploymentLayer {
    deployment: Deployment,
}

/// The service of [`DeploymentLayer`].
#[derive(Clone, Debug)]
pub struct WithDeployment<S> {
    inner: S,
    deployment: Deployment,
}

impl DeploymentLayer {
    /// The deployment called `name`.
    ///
    /// # Errors
    ///
    /// If `name` is empty, `.` or `..`, or has control characters.
    pub fn new(name: &str) -> Result<Self, ConfigError> {
        let deployment = Deployment::new(name).ok_or_else(|| {
            ConfigError::new(
                "deployment",
                format!("{name:?} is not a name: use that of a deployment of the resource"),
            )
        })?;
        Ok(Self { deployment })
    }
}

impl<S> WithDeployment<S> {
    /// The wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Mutable access to the wrapped service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Unwraps the service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S> Layer<S> for DeploymentLayer {
    type Service = WithDeployment<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WithDeployment { inner, deployment: self.deployment.clone() }
    }
}

impl<S, B> Service<Request<B>> for WithDeployment<S>
where
    S: Service<Request<B>>,
    B: TryCloneBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut reading = RequestReading::default();
        // A request that cannot name a deployment is passed on unchanged: this layer has no answer of
        // its own.
        let _ = rewrite::rewrite_model(&mut request, &mut reading, &self.deployment);
        let read = reading.path(request.uri());
        if let Some(uri) = rewrite::rewrite_deployment(request.uri(), read, &self.deployment) {
            *request.uri_mut() = uri;
        }
        self.inner.call(request)
    }
}
