//! Stored objects: files, conversations, containers and the like, with ids that only their resource
//! knows.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use serde_json::{Value, json};

use crate::{Standard, routes, standard::Windows};

/// One type of stored object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Collection {
    segment: &'static str,
    prefix: &'static str,
    object: &'static str,
}

/// A request for the resource's stored objects, not for a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateRequest<'a> {
    pub(crate) collection: &'static Collection,
    pub(crate) action: Action<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    Create,
    List,
    Read(&'a str),
    Update(&'a str),
    Delete(&'a str),
    /// Below an object: the rest of the path, and whether the request creates something there.
    Below(&'a str, &'a str, bool),
}

impl<'a> StateRequest<'a> {
    /// `None` if the path belongs to another operation.
    pub(crate) fn read(method: &Method, path: &'a str, query: Option<&str>) -> Option<Self> {
        let rest = path.strip_prefix("/openai/")?;
        let rest = match rest.strip_prefix("v1/") {
            Some(rest) => rest,
            None => routes::api_version(query).map(|_| rest)?,
        };
        let below = |segment: &str| {
            let rest = rest.strip_prefix(segment)?;
            if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
        };
        let found = COLLECTIONS.iter().find_map(|it| Some((it, below(it.segment)?)));
        let (collection, rest) = found?;
        let (id, deeper) = rest.split_once('/').unwrap_or((rest, ""));
        let action = match (method.as_str(), id, deeper) {
            ("GET", "", _) => Action::List,
            // A deployment creates those.
            ("POST", "", _) if MADE_BY_MODELS.contains(&collection.segment) => return None,
            ("POST", "", _) => Action::Create,
            ("GET", id, "") => Action::Read(id),
            ("POST", id, "") => Action::Update(id),
            ("DELETE", id, "") => Action::Delete(id),
            (method @ ("GET" | "POST" | "DELETE"), id, deeper) => {
                Action::Below(id, deeper, method == "POST" && !ENDS.contains(&deeper))
            }
            _ => return None,
        };
        Some(Self { collection, action })
    }

    /// Whether the request creates an object.
    pub(crate) const fn creates(&self) -> bool {
        matches!(self.action, Action::Create | Action::Below(_, _, true))
    }
}

/// The stored objects of one resource, and the rate limits on requests for them.
#[derive(Debug)]
pub(crate) struct Store {
    tag: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Null once deleted.
    objects: BTreeMap<String, Value>,
    creations: Windows,
    others: Windows,
}

/// Why a request for stored objects is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateError {
    Unknown(String),
    /// The requests are used up for this long.
    Refused(Duration),
}

impl Store {
    /// The store of the resource whose ids have this tag.
    pub(crate) fn new(tag: u32, creations: Option<u64>, others: Option<u64>) -> Self {
        let windows = |requests: Option<u64>| {
            let unlimited = Standard::unlimited();
            Windows::new(requests.map_or(unlimited, |n| unlimited.requests_per_minute(n)))
        };
        let objects = BTreeMap::new();
        let state = State { objects, creations: windows(creations), others: windows(others) };
        Self { tag, state: Mutex::new(state) }
    }

    /// Answers a request; `serial` is unique to the request.
    pub(crate) fn answer(
        &self,
        request: StateRequest<'_>,
        now: Duration,
        created: u64,
        serial: (u64, u64),
    ) -> Result<Value, StateError> {
        let mut state = self.lock();
        let windows = if request.creates() { &mut state.creations } else { &mut state.others };
        windows.admit(now, 0).map_err(|(wait, _)| StateError::Refused(wait))?;
        let Collection { segment, prefix, object } = *request.collection;
        match request.action {
            Action::Create => {
                let id = self.id(prefix, serial);
                let made = json!({"id": id, "object": object, "created_at": created,
                    "status": "completed"});
                state.keep(id, made.clone());
                Ok(made)
            }
            Action::List => {
                let own =
                    |(id, object): &(&String, &Value)| id.starts_with(prefix) && !object.is_null();
                let objects = state.objects.iter().filter(own).map(|(_, object)| object);
                let data: Vec<_> = objects.cloned().collect();
                let id = |object: Option<&Value>| object.map(|object| object["id"].clone());
                Ok(json!({"object": "list", "first_id": id(data.first()),
                    "last_id": id(data.last()), "has_more": false, "data": data}))
            }
            Action::Read(id) | Action::Update(id) => self.find(&state, request.collection, id),
            Action::Delete(id) => {
                self.find(&state, request.collection, id)?;
                state.keep(id.to_owned(), Value::Null);
                Ok(json!({"id": id, "object": format!("{object}.deleted"), "deleted": true}))
            }
            Action::Below(id, deeper, true) => {
                self.find(&state, request.collection, id)?;
                let (name, _) = deeper.split_once('/').unwrap_or((deeper, ""));
                let name = name.trim_end_matches('s');
                Ok(json!({"id": self.id(&format!("{name}_"), serial), "object": name,
                    "created_at": created, "status": "completed"}))
            }
            Action::Below(id, deeper, false) => {
                let mut found = self.find(&state, request.collection, id)?;
                if ENDS.contains(&deeper) {
                    let status = if deeper == "cancel" { "cancelled" } else { "completed" };
                    found["status"] = status.into();
                    if segment != "responses" {
                        state.keep(id.to_owned(), found.clone());
                    }
                    return Ok(found);
                }
                Ok(json!({"object": "list", "data": [], "has_more": false}))
            }
        }
    }

    /// Stores an object that a deployment created.
    pub(crate) fn keep(&self, id: &str, object: Value) {
        self.lock().keep(id.to_owned(), object);
    }

    /// Whether this resource created `id`, whose type has this `prefix`.
    pub(crate) fn made(&self, id: &str, prefix: &str) -> bool {
        let rest = id.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(&format!("{:08x}", self.tag)))
    }

    /// The first id in `body` of an object of another resource.
    pub(crate) fn foreign<'b>(&self, body: &'b Value) -> Option<&'b str> {
        match body {
            Value::String(text) => {
                let prefix = COLLECTIONS.iter().map(|it| it.prefix).find(|it| is_id(text, it))?;
                (!self.made(text, prefix)).then_some(text)
            }
            Value::Array(parts) => parts.iter().find_map(|part| self.foreign(part)),
            Value::Object(fields) => fields.values().find_map(|field| self.foreign(field)),
            _ => None,
        }
    }

    fn find(&self, state: &State, collection: &Collection, id: &str) -> Result<Value, StateError> {
        match state.objects.get(id) {
            Some(Value::Null) => {}
            Some(object) if id.starts_with(collection.prefix) => return Ok(object.clone()),
            // Every response counts as stored, so that the store does not grow with each of them.
            None if collection.segment == "responses" && self.made(id, collection.prefix) => {
                return Ok(json!({"id": id, "object": "response", "status": "completed",
                    "error": null, "output": []}));
            }
            _ => {}
        }
        Err(StateError::Unknown(id.to_owned()))
    }

    fn id(&self, prefix: &str, (random, serial): (u64, u64)) -> String {
        format!("{prefix}{:08x}{random:016x}{serial:08x}", self.tag)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, id: String, object: Value) {
        if self.objects.len() >= MAX_OBJECTS {
            self.objects.pop_first();
        }
        self.objects.insert(id, object);
    }
}

/// Whether `text` looks like one of the emulator's ids.
fn is_id(text: &str, prefix: &str) -> bool {
    let rest = text.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

const fn collection(
    segment: &'static str,
    prefix: &'static str,
    object: &'static str,
) -> Collection {
    Collection { segment, prefix, object }
}

const COLLECTIONS: [Collection; 15] = [
    collection("responses", "resp_", "response"),
    collection("videos", "video_", "video"),
    collection("files", "file-", "file"),
    collection("uploads", "upload_", "upload"),
    collection("batches", "batch_", "batch"),
    collection("vector_stores", "vs_", "vector_store"),
    collection("containers", "cntr_", "container"),
    collection("skills", "skill_", "skill"),
    collection("evals", "eval_", "eval"),
    collection("conversations", "conv_", "conversation"),
    collection("assistants", "asst_", "assistant"),
    collection("threads", "thread_", "thread"),
    collection("fine_tuning/jobs", "ftjob-", "fine_tuning.job"),
    collection("prompts", "pmpt_", "prompt"),
    collection("realtime/sessions", "sess_", "realtime.session"),
];
/// Collections whose objects come from a model.
const MADE_BY_MODELS: [&str; 2] = ["responses", "videos"];
/// Actions that end an object and create none.
const ENDS: [&str; 2] = ["cancel", "complete"];
/// For all types together; beyond it, the first id in order is dropped.
const MAX_OBJECTS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(method: &str, path: &'a str) -> Option<(&'static str, Action<'a>)> {
        let method = method.parse().unwrap();
        let request = StateRequest::read(&method, path, None)?;
        Some((request.collection.object, request.action))
    }

    #[test]
    fn paths_say_what_is_done_to_which_thing() {
        for (method, path, object, action) in [
            ("POST", "/openai/v1/files", "file", Action::Create),
            ("GET", "/openai/v1/vector_stores", "vector_store", Action::List),
            ("GET", "/openai/v1/evals/eval_1", "eval", Action::Read("eval_1")),
            ("POST", "/openai/v1/conversations/conv_1", "conversation", Action::Update("conv_1")),
            ("DELETE", "/openai/v1/responses/resp_1", "response", Action::Delete("resp_1")),
            ("POST", "/openai/v1/batches/b/cancel", "batch", Action::Below("b", "cancel", false)),
            ("POST", "/openai/v1/uploads/u/parts", "upload", Action::Below("u", "parts", true)),
            ("GET", "/openai/v1/videos/v/content", "video", Action::Below("v", "content", false)),
            ("GET", "/openai/v1/fine_tuning/jobs", "fine_tuning.job", Action::List),
        ] {
            assert_eq!(read(method, path), Some((object, action)), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/openai/v1/responses"),
            ("POST", "/openai/v1/videos"),
            ("PUT", "/openai/v1/files"),
            ("GET", "/openai/v1/filesystem"),
            ("GET", "/openai/files"),
            ("GET", "/v1/files"),
        ] {
            assert_eq!(read(method, path), None, "{method} {path}");
        }
        let classic = StateRequest::read(&Method::GET, "/openai/files", Some("api-version=1"));
        assert_eq!(classic.map(|request| request.action), Some(Action::List));
    }

    #[test]
    fn only_another_resources_id_is_foreign() {
        let (store, other) = (Store::new(7, None, None), Store::new(8, None, None));
        let theirs = other.id("cntr_", (1, 2));
        let ours = store.id("file-", (3, 4));
        let body = json!({"a": [{"container_id": theirs}, ours]});
        assert_eq!(store.foreign(&body), Some(theirs.as_str()));
        assert_eq!(store.foreign(&json!([ours, "file-abc", "see cntr_", 7, null])), None);
    }
}
