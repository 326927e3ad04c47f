//! A Redis Cluster: which of its servers has which keys.
//!
//! Not the cluster client of the crate `redis`: that one repeats a call whose connection broke,
//! which would count it twice, and all calls wait while it reads the slots again. Here any failure is
//! a failure of the store, and the next connection reads the slots from the seeds.

use std::sync::Arc;

use redis::{ErrorKind, RedisError, Value, aio::MultiplexedConnection};

/// Connections to the primaries of a cluster. Clones share them.
#[derive(Clone)]
pub(super) struct Cluster(Arc<Primaries>);

struct Primaries {
    connections: Vec<MultiplexedConnection>,
    slots: Slots,
}

/// Which primary has which slots.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slots {
    /// By host and port.
    pub(super) primaries: Vec<(String, u16)>,
    /// The last slot of each range, in order, and the index of its primary.
    ranges: Vec<(u16, usize)>,
}

impl Cluster {
    /// `connections` are those of the primaries of `slots`, in this order.
    pub(super) fn new(connections: Vec<MultiplexedConnection>, slots: Slots) -> Self {
        Self(Arc::new(Primaries { connections, slots }))
    }

    /// The connection to the primary of `key`, and the primary's number.
    pub(super) fn of(&self, key: &str) -> (usize, MultiplexedConnection) {
        let primary = self.0.slots.primary(key);
        (primary, self.0.connections[primary].clone())
    }

    pub(super) fn servers(&self) -> Vec<MultiplexedConnection> {
        self.0.connections.clone()
    }

    /// A key of each primary, which begins with `prefix`.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        let slots = &self.0.slots;
        (0..slots.primaries.len()).map(|primary| slots.key_of(primary, prefix)).collect()
    }
}

impl Slots {
    /// Reads the answer to `CLUSTER SLOTS` of the server at `host`.
    pub(super) fn read(answer: &Value, host: &str) -> Result<Self, RedisError> {
        let mut found = Vec::new();
        let Value::Array(ranges) = answer else { return Err(unreadable()) };
        for range in ranges {
            // Its first and last slot, its primary, and replicas.
            let Value::Array(range) = range else { return Err(unreadable()) };
            let [first, last, primary, ..] = &**range else { return Err(unreadable()) };
            let Value::Array(primary) = primary else { return Err(unreadable()) };
            let [name, port, ..] = &**primary else { return Err(unreadable()) };
            let number = |value: &Value| match value {
                Value::Int(number) => u16::try_from(*number).map_err(|_| unreadable()),
                _ => Err(unreadable()),
            };
            // A server that does not know its own name leaves it out.
            let name = redis::from_redis_value_ref::<Option<String>>(name)?;
            let name = name.filter(|name| !name.is_empty() && name != "?");
            let primary = (name.unwrap_or_else(|| host.to_owned()), number(port)?);
            found.push((number(first)?, number(last)?, primary));
        }
        found.sort_unstable();
        let mut slots = Self { primaries: Vec::new(), ranges: Vec::new() };
        let mut next = 0;
        for (first, last, primary) in found {
            if first != next || last < first || last >= SLOTS {
                return Err(uncovered());
            }
            let known = slots.primaries.iter().position(|known| *known == primary);
            let index = known.unwrap_or_else(|| {
                slots.primaries.push(primary);
                slots.primaries.len() - 1
            });
            if slots.primaries.len() > MAX_PRIMARIES {
                return Err((ErrorKind::Client, "the cluster has too many servers").into());
            }
            slots.ranges.push((last, index));
            next = last + 1;
        }
        if next == SLOTS { Ok(slots) } else { Err(uncovered()) }
    }

    /// The number of primaries, each of which has a key.
    #[cfg(fuzzing)]
    pub(super) fn check(&self) -> usize {
        for primary in 0..self.primaries.len() {
            assert_eq!(self.primary(&self.key_of(primary, "sp1:p")), primary);
        }
        self.primaries.len()
    }

    /// The index of the primary that has `key`.
    fn primary(&self, key: &str) -> usize {
        let slot = slot(key);
        let range = self.ranges.partition_point(|(last, _)| *last < slot);
        self.ranges[range].1
    }

    /// A key that `primary` has. Each has a slot, so that there is one.
    fn key_of(&self, primary: usize, prefix: &str) -> String {
        let mut keys = (0_u64..).map(|number| format!("{prefix}{{{number}}}"));
        keys.find(|key| self.primary(key) == primary).expect("numbers do not end")
    }
}

fn unreadable() -> RedisError {
    (ErrorKind::Parse, "the slots of the cluster cannot be read").into()
}

fn uncovered() -> RedisError {
    (ErrorKind::Client, "the cluster has no server for some of its slots").into()
}

/// The slot of a key: CRC-16 (XMODEM) of the part in braces, if there is one.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag });
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    });
    crc % SLOTS
}

const SLOTS: u16 = 16_384;
/// The largest cluster that Redis recommends.
const MAX_PRIMARIES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let bulk = |text: &str| Value::BulkString(text.into());
        let server = |port| Value::Array(vec![bulk(host), Value::Int(port), bulk("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), server(port), server(port + 1)])
    }

    #[test]
    fn a_key_s_slot_is_that_of_the_part_in_braces() {
        // From the specification of Redis Cluster, and from `CLUSTER KEYSLOT`.
        for (key, expected) in [
            ("123456789", 0x31C3),
            ("foo", 12_182),
            ("bar", 5_061),
            ("sp1:{foo}:s", 12_182),
            ("{foo}{bar}", 12_182),
            ("foo{}{bar}", 8_363),
            ("a{b", 13_340),
            ("a}b{c}d{e}", 7_365),
        ] {
            assert_eq!(slot(key), expected % SLOTS, "{key}");
        }
    }

    #[test]
    fn each_key_has_a_primary_and_each_primary_a_key() {
        let answer = Value::Array(vec![
            range(10_923, 16_383, "c", 3),
            range(0, 5_460, "a", 1),
            range(5_461, 5_461, "c", 3),
            range(5_462, 10_922, "", 2),
        ]);
        let slots = Slots::read(&answer, "seed").unwrap();
        let expected =
            [("a", 1), ("c", 3), ("seed", 2)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(slots.primaries, expected);
        assert_eq!([slots.primary("foo"), slots.primary("bar")], [1, 0]);
        for primary in 0..3 {
            assert_eq!(slots.primary(&slots.key_of(primary, "sp1:p")), primary);
        }
    }

    #[test]
    fn an_answer_that_leaves_a_slot_without_a_server_is_an_error() {
        for ranges in [
            vec![],
            vec![range(0, 16_382, "a", 1)],
            vec![range(1, 16_383, "a", 1)],
            vec![range(0, 100, "a", 1), range(102, 16_383, "b", 2)],
            vec![range(0, 100, "a", 1), range(100, 16_383, "b", 2)],
            vec![range(0, 16_384, "a", 1)],
            vec![range(0, 16_383, "a", 1), range(0, 16_383, "b", 2)],
            vec![range(5, 4, "a", 1)],
            vec![range(0, 65_535, "a", 1)],
            vec![range(-1, 16_383, "a", 1)],
            vec![range(0, 16_383, "a", 65_536)],
            vec![Value::Array(vec![Value::Int(0)])],
            vec![Value::Nil],
        ] {
            let read = Slots::read(&Value::Array(ranges.clone()), "seed");
            assert!(read.is_err(), "{ranges:?}");
        }
        assert!(Slots::read(&Value::Okay, "seed").is_err());
        let many = (0..16_384).map(|slot| range(slot, slot, "a", slot)).collect();
        assert!(Slots::read(&Value::Array(many), "seed").is_err());
    }
}
