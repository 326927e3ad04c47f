//! How a client reports that a connection stands: one small request extension.

use std::{fmt, sync::Arc};

use http::Extensions;

/// Tells the layers outside that a connection to the backend stands, before it answers: an extension
/// that a request carries when it is news, for the client to call.
///
/// A backend that could not be connected to is asked after the others until it is back, and one request
/// at a time finds out. Its answer may take long; a connection that stands says the same at once, and
/// a restart of a second is no outage of the length of an answer. A client that knows nothing of this
/// extension loses nothing but that time.
///
/// ```
/// use http::Request;
/// use hyper_util::client::legacy::connect::capture_connection;
/// use tower_spillover::backend::OnConnect;
///
/// fn watch<B>(request: &mut Request<B>) -> Option<impl Future<Output = ()>> {
///     let on_connect = request.extensions_mut().remove::<OnConnect>()?;
///     let mut connection = capture_connection(request);
///     // To be polled beside the client's future, until either is ready.
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
    /// A connection to the backend that the request is addressed to stands, new or kept.
    pub fn connected(&self) {
        (self.0)();
    }

    /// Leaves in the `extensions` of a request what to do once a connection stands, beside what layers
    /// outside left.
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
