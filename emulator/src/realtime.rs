//! A realtime session: the handshake, and a short text conversation.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, handshake::derive_accept_key, protocol::Role},
};

use crate::{EmulatorBody, service::plain};

type Talking = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The session that follows a handshake, as an extension of its answer.
#[derive(Clone)]
pub(crate) struct Session(Arc<Mutex<Option<Talking>>>);

impl Session {
    pub(crate) async fn talk(self) {
        let talking = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(talking) = talking {
            talking.await;
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// Answers a handshake. In process, where there is no connection, refuses it as a plain request.
pub(crate) fn open(head: &Parts, model: &str) -> Response<EmulatorBody> {
    let upgrade = head.extensions.get::<OnUpgrade>().cloned();
    let key = head.headers.get(header::SEC_WEBSOCKET_KEY);
    let (Some(upgrade), Some(key)) = (upgrade, key) else {
        let message = "A realtime session is opened by a WebSocket handshake.";
        let error = json!({"error": {"code": "UpgradeRequired", "message": message}});
        return plain(StatusCode::UPGRADE_REQUIRED, &error);
    };
    let is_version = |value: &HeaderValue| value.as_bytes().trim_ascii() == b"13";
    if !head.headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(is_version) {
        let message = "The version of WebSocket is 13.";
        let error = json!({"error": {"code": "UpgradeRequired", "message": message}});
        let mut response = plain(StatusCode::UPGRADE_REQUIRED, &error);
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, 13.into());
        return response;
    }
    // 16 bytes in base64 (RFC 6455 section 4.1).
    if key.as_bytes().trim_ascii().len() != 24 {
        let error =
            json!({"error": {"code": "BadRequest", "message": "Sec-WebSocket-Key is no key."}});
        return plain(StatusCode::BAD_REQUEST, &error);
    }
    let accept = derive_accept_key(key.as_bytes());
    let mut response = Response::new(EmulatorBody::whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(HeaderValue::try_from(accept).map(|it| (header::SEC_WEBSOCKET_ACCEPT, it)));
    if head.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("realtime"));
    }
    let model = model.to_owned();
    let talking: Talking = Box::pin(async move {
        if let Ok(upgraded) = upgrade.await {
            // An error at the end of a session only concerns its client.
            let _ = talk(upgraded, &model).await;
        }
    });
    response.extensions_mut().insert(Session(Arc::new(Mutex::new(Some(talking)))));
    response
}

async fn talk(upgraded: Upgraded, model: &str) -> Result<(), Error> {
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    let session = json!({"object": "realtime.session", "id": "sess_1", "model": model});
    let mut events = vec![json!({"type": "session.created", "session": session})];
    loop {
        for event in events.drain(..) {
            socket.send(Message::text(event.to_string())).await?;
        }
        let Some(message) = socket.next().await.transpose()? else { return Ok(()) };
        if message.is_text() || message.is_binary() {
            events = answers(&message, &session);
        }
    }
}

/// The service's events in reply to one of a client's.
fn answers(message: &Message, session: &Value) -> Vec<Value> {
    let event: Value =
        message.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    match event["type"].as_str() {
        Some("session.update") => vec![json!({"type": "session.updated", "session": session})],
        Some("conversation.item.create") => {
            vec![json!({"type": "conversation.item.created", "item": event["item"]})]
        }
        Some("response.create") => {
            let usage = json!({"input_tokens": 5, "output_tokens": 2, "total_tokens": 7});
            let done = json!({"id": "resp_1", "status": "completed", "usage": usage});
            let delta = |text| json!({"type": "response.output_text.delta", "delta": text});
            vec![
                json!({"type": "response.created", "response": {"id": "resp_1"}}),
                delta("Hello"),
                delta(" there"),
                json!({"type": "response.done", "response": done}),
            ]
        }
        kind => {
            let message = format!("Invalid value: {}.", kind.unwrap_or("no event"));
            let error = json!({"type": "invalid_request_error", "message": message});
            vec![json!({"type": "error", "error": error})]
        }
    }
}
