//! Finds the resource that a request belongs to.

use std::{borrow::Cow, sync::Arc, time::Instant};

use http::{Method, Request};

use super::{
    Home, Sticky, StickyMatch, caller,
    memory::Found,
    references::{self, ENCRYPTED_PREFIX_BYTES, Reference},
};
use crate::{
    TryCloneBody,
    azure::{ApiCall, ApiPath, Kind, ScannedBody, percent},
    backend::Residents,
};

/// The resource that a request is pinned to, and which ids to learn from its answer. The outermost
/// layer finds it and leaves it in the extensions for the inner ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Binding {
    pub(super) held: Option<(Arc<str>, StickyMatch)>,
    pub(super) learn: LearnScope,
}

/// Which ids to learn from an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LearnScope {
    pub(super) ids: bool,
    pub(super) encrypted: bool,
    /// The client that owns them.
    pub(super) owner: Option<u64>,
}

/// Who owns the objects that a request refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Ownership {
    /// The client itself; also if it refers to nothing.
    Own,
    /// The owner of some is not known: it was made before this process started or by another one, was
    /// forgotten, or does not exist.
    Unknown,
    /// Some belong to another client.
    Others,
}

impl Ownership {
    pub(super) const fn of(found: &Found) -> Self {
        match found {
            Found::Own(_) => Self::Own,
            Found::Unowned(_) | Found::Unknown => Self::Unknown,
            Found::Others => Self::Others,
        }
    }
}

impl Binding {
    /// The binding found by an outer layer, or one among `residents`. Removes what the caller's head
    /// said about it.
    pub(super) fn take<B: TryCloneBody>(
        sticky: &Sticky,
        residents: &Residents,
        request: &mut Request<B>,
        now: Instant,
    ) -> Self {
        if let Some(binding) = request.extensions_mut().remove() {
            return binding;
        }
        let name = caller::take_name(request);
        let home = request.extensions_mut().remove::<Home>();
        let owner = home.as_ref().and_then(Home::owner);
        let mut search = Search::new(sticky, residents, owner, now);
        let RequestSubject { kind, stored, scanned } = search.read(request);
        let named = name.map(|name| residents.named(name.as_str()).ok_or(()));
        let home = || home.unwrap_or_else(|| Home::of_sender(request.headers()));
        // A list shows what others made, too.
        let is_list = search.lists_or_creates && *request.method() != Method::POST;
        let held = search.finish(named, home);
        if let Some(scanned) = scanned {
            request.extensions_mut().insert(scanned);
        }
        // The content of a file is its owner's text, whatever it looks like.
        let is_content = request.uri().path().ends_with("/content");
        let learn = if is_content { LearnScope::default() } else { LearnScope::of(kind, stored) };
        let learn = LearnScope { owner: owner.filter(|_| !is_list && learn.ids), ..learn };
        Self { held, learn }
    }
}

impl Sticky {
    pub(super) fn resources_at<B: TryCloneBody>(
        &self,
        request: &Request<B>,
        now: Instant,
    ) -> Vec<u64> {
        let owner = request.extensions().get().and_then(Home::owner);
        let residents = Residents::default();
        let mut search = Search::new(self, &residents, owner, now);
        search.all = Some(Vec::new());
        search.read(request);
        search.all.unwrap_or_default()
    }

    pub(super) fn ownership_at<B: TryCloneBody>(
        &self,
        request: &Request<B>,
        home: &Home,
        now: Instant,
    ) -> Ownership {
        let residents = Residents::default();
        let mut search = Search::new(self, &residents, home.owner(), now);
        search.read(request);
        search.ownership
    }
}

impl LearnScope {
    fn of(kind: Kind, stored: Option<bool>) -> Self {
        let ids = match kind {
            Kind::Free | Kind::Shown => false,
            Kind::Chat => stored == Some(true),
            Kind::Response => stored != Some(false),
            Kind::Kept => true,
        };
        // Whether requested or not, compacted and fetched responses carry encrypted content. Only the
        // resource that made it can read it, even if nothing was stored there.
        Self { ids, encrypted: matches!(kind, Kind::Response | Kind::Kept), owner: None }
    }
}

pub(super) struct Search<'a> {
    sticky: &'a Sticky,
    residents: &'a Residents,
    /// The client that sends the request, if clients own what they make.
    asker: Option<u64>,
    now: Instant,
    /// The owner so far of everything that the request needs.
    ownership: Ownership,
    /// The resource of ids that no other resource can resolve.
    needed: Lookup,
    /// The resource of items that any resource can read. Used only if nothing else is known.
    readable: Lookup,
    /// Whether the request has a reference that no other resource can resolve.
    is_needed: bool,
    /// Whether the request lists or creates.
    lists_or_creates: bool,
    /// The ids that a fleet's store is to be asked for, if they are wanted.
    missing: Option<Vec<Box<[u8]>>>,
    /// The resources of all ids that are found, if they are wanted.
    all: Option<Vec<u64>>,
}

/// The subject of a request.
struct RequestSubject {
    kind: Kind,
    /// Whether its answer will be stored, if it says so.
    stored: Option<bool>,
    /// The fields found by a scan of its body, if one was necessary.
    scanned: Option<ScannedBody>,
}

/// Some of the ids of a request; the first that is known decides the resource.
struct Lookup {
    known: Option<Arc<str>>,
    /// How many more are looked up.
    left: usize,
}

impl<'a> Search<'a> {
    pub(super) const fn new(
        sticky: &'a Sticky,
        residents: &'a Residents,
        asker: Option<u64>,
        now: Instant,
    ) -> Self {
        Self {
            sticky,
            residents,
            asker,
            now,
            ownership: Ownership::Own,
            needed: Lookup::new(),
            readable: Lookup::new(),
            is_needed: false,
            lists_or_creates: false,
            missing: None,
            all: None,
        }
    }

    /// The ids that `request` refers to, and for which a fleet's store is to be asked: only one resource
    /// holds them, and it is not known, or if clients are kept apart, it is not known whose they are.
    /// Also returns the fields of a scan, if one was necessary.
    pub(super) fn missing<B: TryCloneBody>(
        &mut self,
        request: &Request<B>,
    ) -> (Vec<Box<[u8]>>, Option<ScannedBody>) {
        self.missing = Some(Vec::new());
        let scanned = self.read(request).scanned;
        let is_needed = self.needed.known.is_none() || self.asker.is_some();
        let missing = self.missing.take().filter(|_| is_needed);
        (missing.unwrap_or_default(), scanned)
    }

    /// Looks up the references in the path and the body of a request.
    fn read<B: TryCloneBody>(&mut self, request: &Request<B>) -> RequestSubject {
        let path = request.uri().path();
        let ApiCall { operation, id } = ApiPath::of(path).call(path);
        let kind = operation.kind();
        if let Some(id) = id {
            let is_plain = !id.contains('%');
            let id = id.as_bytes();
            let id = if is_plain { Cow::Borrowed(id) } else { percent::decode(id).collect() };
            self.look_up(&id, true, self.asker);
        }
        self.lists_or_creates = id.is_none() && operation.lists_or_creates(request.method());
        let mut subject = RequestSubject { kind, stored: None, scanned: None };
        let names = request.body().member_names();
        if kind == Kind::Free || names.is_some_and(|names| !references::may_refer(kind, names)) {
            return subject;
        }
        let note = |reference: Reference<'_>| self.note(reference);
        if let Some(content) = request.body().content() {
            let known = ScannedBody::fields(request.extensions(), &content);
            let read = references::read_known(&content, known, kind, note);
            subject.stored = read.stored;
            subject.scanned = read.scanned.map(|fields| ScannedBody::new(content, fields));
        } else if let Some(beginning) = request.body().content_so_far() {
            subject.stored = references::read_known(&beginning, None, kind, note).stored;
        }
        subject
    }

    fn note(&mut self, reference: Reference<'_>) {
        match reference {
            Reference::Id(id) => self.look_up(id, true, self.asker),
            Reference::Item(id) => self.look_up(id, false, self.asker),
            // Every holder was given it, and no other resource can read it, so it has no owner.
            Reference::Encrypted(text) => self.look_up(encrypted_prefix(text), true, None),
        }
    }

    /// Looks `id` up for `asker`.
    fn look_up(&mut self, id: &[u8], is_needed: bool, asker: Option<u64>) {
        self.is_needed |= is_needed;
        let Self { sticky, residents, now, needed, readable, ownership, missing, .. } = self;
        let lookup = if is_needed { needed } else { readable };
        let is_settled = lookup.known.is_some() || lookup.left == 0;
        // The owner matters for every id.
        if is_settled && !(is_needed && asker.is_some()) {
            return;
        }
        let found = sticky.find(id, asker, *now);
        if let Some(missing) = missing
            && is_needed
            && found.is_to_be_recalled(asker)
        {
            missing.push(id.into());
        }
        if is_needed && asker.is_some() {
            *ownership = (*ownership).max(Ownership::of(&found));
        }
        if is_settled {
            return;
        }
        lookup.left -= 1;
        if let Found::Own(resource) | Found::Unowned(resource) = found {
            if let Some(all) = &mut self.all
                && !all.contains(&resource)
            {
                all.push(resource);
            }
            // A backend that was removed from the configuration holds nothing.
            lookup.known = residents.hashed(resource).cloned();
        }
    }

    fn known(&self) -> Option<&Arc<str>> {
        self.needed.known.as_ref().or(self.readable.known.as_ref())
    }

    /// `named` is the resource of the backend that the caller named, if there is such a backend.
    fn finish(
        self,
        named: Option<Result<Arc<str>, ()>>,
        home: impl FnOnce() -> Home,
    ) -> Option<(Arc<str>, StickyMatch)> {
        let held = match (named, self.known()) {
            (Some(Ok(resource)), _) => return Some((resource, StickyMatch::ByName)),
            (_, Some(resource)) => return Some((Arc::clone(resource), StickyMatch::ById)),
            (named, None) if self.is_needed || named.is_some() => StickyMatch::Default,
            _ if self.lists_or_creates => StickyMatch::Home,
            _ => return None,
        };
        Some((home().within(&self.sticky.homes(self.residents)), held))
    }
}

impl Lookup {
    const fn new() -> Self {
        Self { known: None, left: MAX_LOOKUPS }
    }
}

/// The start of encrypted content that identifies it, up to the first escape, because escapes have
/// more than one spelling.
pub(super) fn encrypted_prefix(text: &[u8]) -> &[u8] {
    let text = &text[..text.len().min(ENCRYPTED_PREFIX_BYTES)];
    let plain = text.iter().position(|&byte| byte == b'\\').unwrap_or(text.len());
    &text[..plain]
}

/// Most ids looked up of each kind, needed and readable. A conversation may carry hundreds of items,
/// perhaps of an answer that was not stored; they must not use up the lookups of the others.
const MAX_LOOKUPS: usize = 64;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;
    use crate::{backend::resource_hash, clock, fleet::IdHolder};

    #[test]
    fn what_path_and_body_refer_to_is_known_to_be_with_its_resources() {
        let (sticky, now, east) = (Sticky::new(), clock::now(), Arc::<str>::from("east.example"));
        let is = |resource: &str| IdHolder { resource: resource_hash(resource), owner: None };
        sticky.learn(b"resp_1", is(&east), now);
        let request = |path: &str, body: &'static str| {
            Request::post(path).body(Full::<Bytes>::from(body)).unwrap()
        };
        for (path, body, is_known) in [
            ("/openai/v1/responses/resp_1/cancel", "", true),
            ("/openai/v1/responses/resp%5f1", "", true),
            ("/openai/v1/responses", r#"{"previous_response_id":"resp_1"}"#, true),
            ("/openai/v1/responses/resp_2", "", false),
            ("/openai/v1/responses", r#"{"input":"resp_1"}"#, false),
        ] {
            let found = sticky.resources_at(&request(path, body), now);
            let expected = if is_known { vec![resource_hash(&east)] } else { vec![] };
            assert_eq!(found, expected, "{path} {body}");
        }
        sticky.learn(b"file-1", is("west.example"), now);
        let both = r#"{"previous_response_id":"resp_1",
            "tools":[{"container":{"file_ids":["file-1","file-1"]}}]}"#;
        let found = sticky.resources_at(&request("/openai/v1/responses", both), now);
        assert_eq!(found, [&*east, "west.example"].map(resource_hash));
    }

    #[test]
    fn a_body_that_was_scanned_is_not_scanned_again() {
        let mut request = Request::post("/openai/v1/responses")
            .body(Full::<Bytes>::from(r#"{"input":"hi","prompt_cache_key":"a"}"#))
            .unwrap();
        let (sticky, residents) = (Sticky::new(), Residents::new([]));
        Binding::take(&sticky, &residents, &mut request, clock::now());
        let content = request.body().content().unwrap();
        let known = ScannedBody::fields(request.extensions(), &content);
        assert!(known.is_some_and(|fields| fields.iter().count() == 2));
    }

    #[test]
    fn a_seal_does_not_depend_on_how_the_rest_is_escaped() {
        let long = "g".repeat(ENCRYPTED_PREFIX_BYTES + 1);
        assert_eq!(encrypted_prefix(long.as_bytes()), &long.as_bytes()[..ENCRYPTED_PREFIX_BYTES]);
        assert_eq!(encrypted_prefix(br"gAAA\/b"), b"gAAA");
        assert_eq!(encrypted_prefix(br"gAAA\u002fb"), encrypted_prefix(br"gAAA\/b"));
        assert_eq!(encrypted_prefix(b""), b"");
    }

    #[test]
    fn an_answer_teaches_what_is_kept_of_it() {
        assert_eq!(LearnScope::of(Kind::Free, None), LearnScope::default());
        assert_eq!(LearnScope::of(Kind::Chat, None), LearnScope::default());
        assert_eq!(
            LearnScope::of(Kind::Chat, Some(true)),
            LearnScope { ids: true, encrypted: false, owner: None }
        );
        let all = LearnScope { ids: true, encrypted: true, owner: None };
        assert_eq!(
            [LearnScope::of(Kind::Response, None), LearnScope::of(Kind::Kept, None)],
            [all; 2]
        );
        let unstored = LearnScope::of(Kind::Response, Some(false));
        assert_eq!(unstored, LearnScope { ids: false, encrypted: true, owner: None });
    }
}
