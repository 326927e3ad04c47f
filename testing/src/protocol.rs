//! hyper clients of both protocol versions.

use std::time::Duration;

use http_body::Body;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};

pub type Client<B> = legacy::Client<HttpConnector, B>;
pub type Error = legacy::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// With prior knowledge, in clear text.
    Http2,
}

pub const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

impl Protocol {
    pub fn client<B>(self) -> Client<B>
    where
        B: Body + Send,
        B::Data: Send,
    {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(2)));
        legacy::Client::builder(TokioExecutor::new()).http2_only(self == Self::Http2).build(tcp)
    }
}
