//! Hides ids, and who holds them, from those who can read the store.

use std::{collections::BTreeMap, fmt, sync::LazyLock, time::Duration};

use redis::{FromRedisValue, Script, Value};
use ring::hmac::{Context, HMAC_SHA256, Key, Tag};

use super::{courier::Link, keys};
use crate::{
    ConfigError,
    fleet::{IdHolder, Unreachable, ids::generation_us},
};

/// The secret that the processes of a fleet hash ids under.
#[derive(Clone)]
pub(super) struct IdSecret(Key);

/// The hash of an id.
struct HashedId(Tag);

impl IdSecret {
    pub(super) fn new(secret: &str) -> Result<Self, ConfigError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(ConfigError::new(
                "fleet secret",
                format!(
                    "is shorter than {MIN_SECRET_BYTES} bytes; make one with `openssl rand -base64 32`"
                ),
            ));
        }
        Ok(Self(Key::new(HMAC_SHA256, secret.as_bytes())))
    }

    fn hash(&self, id: &[u8]) -> HashedId {
        HashedId(self.sign(b'i', &[id]))
    }

    /// What is stored of a holder: a part that shows that someone with the secret wrote it for this id,
    /// and the numbers, which look random to everyone else. Equal owners of one id are equal, so that
    /// the store can compare them.
    fn seal(&self, id: &HashedId, is: IdHolder) -> Vec<u8> {
        let mask = id.mask();
        let mut sealed = self.proof(id, is).to_vec();
        sealed.extend((is.resource ^ mask[0]).to_be_bytes());
        sealed.extend(is.owner.into_iter().flat_map(|owner| (owner ^ mask[1]).to_be_bytes()));
        sealed
    }

    /// The holder, or `None` if it was not written for this id with this secret.
    fn open(&self, id: &HashedId, sealed: &[u8]) -> Option<IdHolder> {
        let (numbers, rest) = sealed.as_chunks::<8>();
        let mask = id.mask();
        let is = match *numbers {
            [_, resource] => IdHolder { resource: number(resource) ^ mask[0], owner: None },
            [_, resource, owner] => IdHolder {
                resource: number(resource) ^ mask[0],
                owner: Some(number(owner) ^ mask[1]),
            },
            _ => return None,
        };
        (rest.is_empty() && numbers[0] == self.proof(id, is)).then_some(is)
    }

    fn proof(&self, id: &HashedId, is: IdHolder) -> [u8; 8] {
        let owner = is.owner.map(u64::to_be_bytes);
        let owner = owner.as_ref().map_or(&[][..], |owner| &owner[..]);
        let tag = self.sign(b'h', &[id.0.as_ref(), &is.resource.to_be_bytes(), owner]);
        part(&tag, 0)
    }

    fn sign(&self, purpose: u8, parts: &[&[u8]]) -> Tag {
        let mut context = Context::with_key(&self.0);
        context.update(&[purpose]);
        parts.iter().for_each(|part| context.update(part));
        context.sign()
    }
}

impl HashedId {
    /// What identifies it in the store.
    fn key(&self) -> &[u8] {
        &self.0.as_ref()[..KEY_BYTES]
    }

    fn mask(&self) -> [u64; 2] {
        [number(part(&self.0, 16)), number(part(&self.0, 24))]
    }
}

/// Runs a script of ids at once in all slots that they are in. `arguments` are those for the ids at these
/// places. Returns the holders in the order of `ids`.
pub(super) async fn run(
    link: &Link,
    script: &'static Script,
    secret: &IdSecret,
    prefix: Prefix<'_>,
    ids: &[&[u8]],
    arguments: impl Fn(&[usize]) -> Vec<Vec<u8>>,
) -> Result<Vec<Option<IdHolder>>, Unreachable> {
    let slots = prefix.slots(secret, ids, link.is_cluster());
    let calls = slots.into_iter().map(|(key, places)| {
        let (link, arguments) = (link.clone(), arguments(&places));
        let call = async move {
            let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
            link.script(script, &[&key], &arguments).await
        };
        (places, tokio::spawn(call))
    });
    let mut holders = vec![None; ids.len()];
    for (places, call) in calls.collect::<Vec<_>>() {
        let answer = call.await.map_err(|_| Unreachable)??;
        let found = read(secret, places.iter().map(|&place| ids[place]), &answer)?;
        places.iter().zip(found).for_each(|(&place, holder)| holders[place] = holder);
    }
    Ok(holders)
}

/// The arguments of `remember.lua`.
pub(super) fn to_remember<'a>(
    secret: &IdSecret,
    age: Duration,
    ids: impl IntoIterator<Item = &'a (Box<[u8]>, IdHolder)>,
) -> Vec<Vec<u8>> {
    let mut arguments = vec![Vec::new(), generation_us(age).to_string().into_bytes()];
    for (id, is) in ids {
        let id = secret.hash(id);
        arguments.extend([id.key().to_vec(), secret.seal(&id, *is)]);
    }
    arguments
}

/// The arguments of `recall.lua`.
pub(super) fn to_recall<'a>(
    secret: &IdSecret,
    age: Duration,
    ids: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Vec<u8>> {
    let mut arguments = vec![Vec::new(), generation_us(age).to_string().into_bytes()];
    arguments.extend(ids.into_iter().map(|id| secret.hash(id).key().to_vec()));
    arguments
}

/// The answer of a script. A holder that cannot be read is unknown: a store may answer anything.
pub(super) fn read<'a>(
    secret: &IdSecret,
    ids: impl ExactSizeIterator<Item = &'a [u8]>,
    answer: &Value,
) -> Result<Vec<Option<IdHolder>>, Unreachable> {
    let sealed = Vec::<Vec<u8>>::from_redis_value_ref(answer).map_err(|_| Unreachable)?;
    if sealed.len() != ids.len() {
        return Err(Unreachable);
    }
    let ids = ids.map(|id| secret.hash(id));
    Ok(ids.zip(sealed).map(|(id, sealed)| secret.open(&id, &sealed)).collect())
}

/// The ids of a fleet. Processes with different ages do not see each other's: they have other
/// generations.
#[derive(Clone, Copy)]
pub(super) struct Prefix<'a> {
    pub(super) fleet: &'a str,
    pub(super) age: Duration,
}

impl Prefix<'_> {
    /// The beginning of the keys of ids, and the places of the ids: in a cluster for each of 16 slots that
    /// has some of them, so that its servers share the ids.
    fn slots(
        self,
        secret: &IdSecret,
        ids: &[&[u8]],
        is_cluster: bool,
    ) -> BTreeMap<String, Vec<usize>> {
        let mut slots = BTreeMap::<_, Vec<_>>::new();
        for (place, id) in ids.iter().enumerate() {
            let slot = is_cluster.then(|| secret.hash(id).key()[0] >> 4);
            slots.entry(self.key(slot)).or_default().push(place);
        }
        slots
    }

    pub(super) fn key(self, slot: Option<u8>) -> String {
        let Self { fleet, age } = self;
        let slot = slot.map_or(String::new(), |slot| format!(":{slot:x}"));
        format!("{}:{{{fleet}:i{slot}}}:{}", keys::SCHEMA, age.as_secs())
    }
}

fn part(tag: &Tag, from: usize) -> [u8; 8] {
    let bytes = tag.as_ref()[from..].first_chunk();
    *bytes.expect("a tag has 32 bytes")
}

fn number(bytes: [u8; 8]) -> u64 {
    u64::from_be_bytes(bytes)
}

/// Shows nothing of the secret.
impl fmt::Debug for IdSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdSecret")
    }
}

pub(super) static REMEMBER: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("ids.lua"), include_str!("remember.lua"))));
pub(super) static RECALL: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("ids.lua"), include_str!("recall.lua"))));

/// 16 random bytes, or 22 characters of base64, have 128 bits: too many values to try all.
const MIN_SECRET_BYTES: usize = 16;
/// Two bytes of them choose one of 65,536 hashes in the store, which are packed while they are short. Of
/// a billion ids, two have the same 80 bits once in two million fleets; then the proof of one is
/// missing, and it is unknown.
const KEY_BYTES: usize = 10;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::fleet::redis::cluster::slot;

    fn secret(text: &str) -> IdSecret {
        IdSecret::new(text).unwrap()
    }

    const A: &str = "0123456789abcdef";

    #[test]
    fn what_is_sealed_can_be_read_with_the_secret_and_for_the_id_alone() {
        let [own, other] = [A, "another secret, as long"].map(secret);
        let [id, another] = [&b"resp_1"[..], b"resp_2"].map(|id| own.hash(id));
        for owner in [None, Some(0), Some(7), Some(u64::MAX)] {
            let is = IdHolder { resource: 0x1234_5678_9abc_def0, owner };
            let sealed = own.seal(&id, is);
            assert_eq!(own.open(&id, &sealed), Some(is));
            assert_eq!(own.open(&another, &sealed), None);
            assert_eq!(other.open(&other.hash(b"resp_1"), &sealed), None);
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(own.open(&id, &changed), None, "{at}");
                assert_eq!(own.open(&id, &sealed[..at]), None, "{at}");
            }
            assert_eq!(own.open(&id, &[&sealed[..], &[0; 8]].concat()), None);
        }
    }

    #[test]
    fn neither_an_id_nor_its_holder_is_in_what_is_stored() {
        let own = secret(A);
        let is = IdHolder { resource: 0x1234_5678_9abc_def0, owner: Some(0x0fed_cba9_8765_4321) };
        let id = own.hash(b"resp_1");
        let stored = [id.key(), &own.seal(&id, is)].concat();
        for plain in
            [&b"resp"[..], &is.resource.to_be_bytes(), &0x0fed_cba9_8765_4321_u64.to_be_bytes()]
        {
            assert!(!stored.windows(plain.len()).any(|it| it == plain));
        }
        let shown = format!("{own:?}");
        assert_eq!(shown, "IdSecret");
        // The store compares the owners of an id, and sees nothing of those of two.
        let [first, second] =
            [b"resp_1", b"resp_2"].map(|id| own.seal(&own.hash(id), is)[16..].to_vec());
        assert_ne!(first, second);
    }

    #[test]
    fn ids_are_in_sixteen_slots_of_a_cluster_and_under_one_key_of_a_server() {
        let prefix = Prefix { fleet: "prod", age: Duration::from_secs(60) };
        let names: Vec<String> = (0..1_000).map(|id| format!("resp_{id}")).collect();
        let ids: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let of_cluster = prefix.slots(&secret(A), &ids, true);
        let slots = of_cluster.keys().map(|key| slot(key)).collect::<HashSet<_>>();
        assert_eq!((of_cluster.len(), slots.len()), (16, 16), "{:?}", of_cluster.keys());
        // A key that the script makes stays in the slot.
        assert!(of_cluster.keys().all(|key| slot(&format!("{key}:17:0a1b")) == slot(key)));
        let mut places: Vec<usize> = of_cluster.into_values().flatten().collect();
        places.sort_unstable();
        let all: Vec<usize> = (0..1_000).collect();
        assert_eq!(places, all);
        let of_server = prefix.slots(&secret(A), &ids, false);
        assert_eq!(of_server.into_iter().collect::<Vec<_>>(), [("sp1:{prod:i}:60".into(), all)]);
    }

    #[test]
    fn a_short_secret_is_refused() {
        for short in ["", "0123456789abcde"] {
            let error = IdSecret::new(short).unwrap_err().to_string();
            assert!(error.contains("fleet secret") && error.contains("openssl"), "{error}");
        }
    }

    #[test]
    fn an_answer_that_is_no_answer_is_none() {
        let (own, ids) = (secret(A), || [&b"a"[..]].into_iter());
        for value in [Value::Nil, Value::Int(3), Value::Array(vec![]), Value::Okay] {
            assert_eq!(read(&own, ids(), &value), Err(Unreachable), "{value:?}");
        }
        let text = |text: &[u8]| Value::Array(vec![Value::BulkString(text.to_vec())]);
        for text in [text(b""), text(b"x"), text(&[7; 24])] {
            assert_eq!(read(&own, ids(), &text), Ok(vec![None]), "{text:?}");
        }
    }
}
