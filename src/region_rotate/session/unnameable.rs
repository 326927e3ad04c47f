//! The answer to a request whose model cannot be renamed for the backend's deployment.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::Session;
use crate::{ResponseBody, served::Why};

impl Session {
    /// Nothing was sent, and no other backend is tried: it could not rename the model either.
    #[cold]
    pub(in crate::region_rotate) fn unnameable<R>(&mut self) -> Response<ResponseBody<R>> {
        self.drop_watch();
        self.not_sent();
        let text = Bytes::from_static(TEXT);
        let mut response = Response::new(ResponseBody::own(text.clone()));
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, text.len().into());
        self.served.set_own();
        self.served.set_unreplayable();
        self.served.set_why_refused(Some(Why::NotReplayable));
        self.finished(Some(StatusCode::PAYLOAD_TOO_LARGE));
        response.extensions_mut().insert(self.served.take());
        response
    }
}

const TEXT: &[u8] = br#"{"error":{"code":"413","type":"invalid_request_error","message":"The body is too long to be kept in memory (ReplayLayer::new), or its model is not written plainly, so that the model could not be given the name of the backend's deployment. Nothing was sent. Name the model first, raise the limit of what is kept, or name the deployment in the path.","param":"model"}}"#;
