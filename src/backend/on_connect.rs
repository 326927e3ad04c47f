//! Lets a client report that a connection stands, by a request extension.

use std::{fmt, sync::Arc};

use http::Extensions;

/// Reports to the outer layers that a connection to the backend stands, before it answers: a request
/// extension for the client to call, present only if that is news.
///
/// A backend that could not be connected to is deferred until it has recovered, and one request at a
/// time probes it. Its answer may take long, whereas a connection shows the recovery immediately, so
/// that a restart of a second does not count as an outage of the length of an answer. A client that
/// ignores this extension loses only that time.
///
/// ```
/// use http::Request;
/// use hyper_util::client::legacy::connect::capture_connection;
/// use tower_spillover::backend::OnConnect;
///
/// fn watch<B>(request: &mut Request<B>) -> Option<impl Future<Output = ()>> {
///     let on_connect = request.extensions_mut().remove::<OnConnect>()?;
///     let mut connection = capture_connection(request);
///     // Poll it together with the client's future, until either is ready.
///     Some(async move {
///         if connection.wait_for_connection_metadata().await.is_some() {
///             on_connect.connected();
///         }
///     })
/// }
/// ```
#[derive(Clone)]
pub struct OnConnect(Arc<dyn Fn() + Send + Sync>);

impl OnConnect {
    /// A connection to the addressed backend stands, new or reused.
    pub fn connected(&self) {
        (self.0)();
    }

    /// Adds to a request's `extensions` what to do once a connection stands, keeping what outer
    /// layers added.
    pub(crate) fn insert(extensions: &mut Extensions, act: impl Fn() + Send + Sync + 'static) {
        let outer: Option<Self> = extensions.remove();
        extensions.insert(Self(Arc::new(move || {
            act();
            if let Some(outer) = &outer {
                outer.connected();
            }
        })));
    }
}

impl fmt::Debug for OnConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnConnect(..)")
    }
}
