//! Finds the resource that a request belongs to.

use std::{borrow::Cow, sync::Arc, time::Instant};

use http::{Method, Request};

use super::{
    Home, Sticky, StickyMatch, caller,
    memory::Found,
    references::{self, Reference, SEAL},
};
use crate::{
    TryCloneBody,
    azure::{ApiCall, ApiPath, Kind, ScannedBody, percent},
    backend::Residents,
};

/// What stickiness makes of a request: where it is held, and what its answer teaches. The layer
/// that is asked first leaves it in the extensions for those inside of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Binding {
    pub(super) held: Option<(Arc<str>, StickyMatch)>,
    pub(super) lesson: LearnScope,
}

/// What is to be learned from an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LearnScope {
    pub(super) ids: bool,
    pub(super) seals: bool,
    /// Whose it is.
    pub(super) owner: Option<u64>,
}

/// Whose the things are that a request refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Ownership {
    /// The client's own, or nothing.
    Own,
    /// Some of it nobody is known to own: it was made before this process began or by another one, or is
    /// forgotten, or does not exist.
    Unknown,
    /// Some of it is another client's.
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
    /// The binding that a layer outside found, or one among `residents`. What the caller said in
    /// the head about this is taken out.
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
        let Subject { kind, stored, scanned } = search.read(request);
        let named = name.map(|name| residents.named(name.as_str()).ok_or(()));
        let home = || home.unwrap_or_else(|| Home::of_sender(request.headers()));
        // A list shows what others made, too.
        let is_list = search.lists_or_creates && *request.method() != Method::POST;
        let held = search.finish(named, home);
        if let Some(scanned) = scanned {
            request.extensions_mut().insert(scanned);
        }
        // A file's content is its owner's words, whatever they look like.
        let is_content = request.uri().path().ends_with("/content");
        let lesson = if is_content { LearnScope::default() } else { LearnScope::of(kind, stored) };
        let lesson = LearnScope { owner: owner.filter(|_| !is_list && lesson.ids), ..lesson };
        Self { held, lesson }
    }
}

impl Sticky {
    pub(super) fn knows_at<B: TryCloneBody>(
        &self,
        request: &Request<B>,
        residents: &Residents,
        now: Instant,
    ) -> bool {
        let owner = request.extensions().get().and_then(Home::owner);
        let mut search = Search::new(self, residents, owner, now);
        search.read(request);
        search.known().is_some()
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
        // Whether anyone asked for it or not: what is compacted comes sealed, and so does what is
        // fetched. It can be read where it was made alone, even if nothing was stored there.
        Self { ids, seals: matches!(kind, Kind::Response | Kind::Kept), owner: None }
    }
}

struct Search<'a> {
    sticky: &'a Sticky,
    residents: &'a Residents,
    /// Whose request it is, where clients own what they make.
    asker: Option<u64>,
    now: Instant,
    /// Whose all that is, so far, which the request cannot do without.
    ownership: Ownership,
    /// Who has what no other resource can do without.
    needed: Lookup,
    /// Who has an item that any resource can read. It counts where nothing else is known.
    readable: Lookup,
    /// Whether something was found that no other resource can do without.
    is_needed: bool,
    /// Whether the request lists or creates.
    lists_or_creates: bool,
}

/// What a request is about.
struct Subject {
    kind: Kind,
    /// Whether its answer is to be stored, if it says.
    stored: Option<bool>,
    /// What was found by a scan of its body, if there had to be one.
    scanned: Option<ScannedBody>,
}

/// Some of the ids of a request, of which the first that is known settles where they are.
struct Lookup {
    known: Option<Arc<str>>,
    /// How many more are looked up.
    left: usize,
}

impl<'a> Search<'a> {
    const fn new(
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
        }
    }

    /// Looks up what the path and the body of a request refer to.
    fn read<B: TryCloneBody>(&mut self, request: &Request<B>) -> Subject {
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
        let mut subject = Subject { kind, stored: None, scanned: None };
        if kind == Kind::Free {
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
            // Who has it was given it, and no other resource can read it.
            Reference::Sealed(text) => self.look_up(seal(text), true, None),
        }
    }

    /// Looks `id` up for `asker`.
    fn look_up(&mut self, id: &[u8], is_needed: bool, asker: Option<u64>) {
        self.is_needed |= is_needed;
        let Self { sticky, residents, now, needed, readable, ownership, .. } = self;
        let lookup = if is_needed { needed } else { readable };
        let is_settled = lookup.known.is_some() || lookup.left == 0;
        // Whose it is counts for every one of them.
        if is_settled && !(is_needed && asker.is_some()) {
            return;
        }
        let found = sticky.find(id, asker, *now);
        if is_needed && asker.is_some() {
            *ownership = (*ownership).max(Ownership::of(&found));
        }
        if is_settled {
            return;
        }
        lookup.left -= 1;
        let known = match found {
            Found::Own(resource) | Found::Unowned(resource) => Some(resource),
            Found::Others | Found::Unknown => None,
        };
        // A backend that was taken out of the configuration holds nothing any more.
        lookup.known = known.filter(|resource| residents.holds(resource));
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
        Self { known: None, left: MOST }
    }
}

/// What encrypted content is known by: its beginning, up to the first escape, since those may be
/// written in more than one way.
pub(super) fn seal(text: &[u8]) -> &[u8] {
    let text = &text[..text.len().min(SEAL)];
    let plain = text.iter().position(|&byte| byte == b'\\').unwrap_or(text.len());
    &text[..plain]
}

/// A conversation may carry hundreds of items, of an answer that was not stored for all that anyone
/// knows. They do not use up what is looked up of the rest.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;
    use crate::clock;

    #[test]
    fn what_path_and_body_refer_to_is_known_to_be_with_its_resource_alone() {
        let (sticky, now, east) = (Sticky::new(), clock::now(), Arc::<str>::from("east.example"));
        sticky.learn(b"resp_1", &east, None, now);
        let here = Residents::new([("east".into(), east)]);
        let elsewhere = Residents::new([("west".into(), "west.example".into())]);
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
            let request = request(path, body);
            assert_eq!(sticky.knows_at(&request, &here, now), is_known, "{path} {body}");
            assert!(!sticky.knows_at(&request, &elsewhere, now), "{path} {body}");
        }
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
        let (key, scanned) = crate::sticky::CacheAffinity::Key.key_known(&content, known);
        assert!(key.is_some() && scanned.is_none());
    }

    #[test]
    fn a_seal_does_not_depend_on_how_the_rest_is_escaped() {
        let long = "g".repeat(SEAL + 1);
        assert_eq!(seal(long.as_bytes()), &long.as_bytes()[..SEAL]);
        assert_eq!(seal(br"gAAA\/b"), b"gAAA");
        assert_eq!(seal(br"gAAA\u002fb"), seal(br"gAAA\/b"));
        assert_eq!(seal(b""), b"");
    }

    #[test]
    fn an_answer_teaches_what_is_kept_of_it() {
        assert_eq!(LearnScope::of(Kind::Free, None), LearnScope::default());
        assert_eq!(LearnScope::of(Kind::Chat, None), LearnScope::default());
        assert_eq!(
            LearnScope::of(Kind::Chat, Some(true)),
            LearnScope { ids: true, seals: false, owner: None }
        );
        let all = LearnScope { ids: true, seals: true, owner: None };
        assert_eq!(
            [LearnScope::of(Kind::Response, None), LearnScope::of(Kind::Kept, None)],
            [all; 2]
        );
        let unstored = LearnScope::of(Kind::Response, Some(false));
        assert_eq!(unstored, LearnScope { ids: false, seals: true, owner: None });
    }
}
