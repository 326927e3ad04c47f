//! The gate of a PTU as a script, and the news that it publishes.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use redis::{FromRedisValue, PushInfo, PushKind, Script, Value};

use super::{
    courier::{Failed, Link},
    keys,
};
use crate::fleet::{GateCall, GateNews, GateReply, Name, duration, gate_layout, gate_script};

/// The keys of one gate.
#[derive(Clone)]
pub(super) struct GateKeys {
    state: String,
    queue: String,
    waiting: String,
    pub(super) channel: String,
}

impl GateKeys {
    pub(super) fn new(name: &Name) -> Self {
        let (key, layout) = (keys::key(name), *LAYOUT);
        let part = |part: char| format!("{key}:{part}{layout:04x}");
        // A version of another layout has a queue of its own, but hears that the PTU is busy.
        let channel = format!("{key}:n");
        Self { state: part('s'), queue: part('q'), waiting: part('w'), channel }
    }

    /// Applies `call`. An answer that makes no sense is none.
    pub(super) async fn run(&self, link: &Link, call: &GateCall) -> Result<GateReply, Failed> {
        let arguments = call.arguments(&self.channel);
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        let keys = [&*self.state, &*self.queue, &*self.waiting];
        let reply = link.script(&GATE, &keys, &arguments).await?;
        read(&reply).ok_or(Failed)
    }
}

fn read(reply: &Value) -> Option<GateReply> {
    let numbers = Vec::<i64>::from_redis_value_ref(reply).ok()?;
    GateReply::read(&numbers)
}

/// The longest time in a reply, or in news.
#[cfg(fuzzing)]
pub(super) fn longest_time(reply: &Value) -> Option<Duration> {
    read(reply).map(|reply| reply.longest_time()).max(busy_for(reply))
}

/// The gates of this process that hear news, by channel.
#[derive(Debug, Default)]
pub(super) struct GateListeners(Mutex<HashMap<String, Vec<GateNews>>>);

impl GateListeners {
    /// Returns whether the channel is new.
    pub(super) fn add(&self, channel: String, news: GateNews) -> bool {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|_, listeners| {
            listeners.retain(GateNews::is_heard);
            !listeners.is_empty()
        });
        let listeners = channels.entry(channel).or_default();
        listeners.push(news);
        listeners.len() == 1
    }

    pub(super) fn channels(&self) -> Vec<String> {
        let channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        channels.keys().cloned().collect()
    }

    /// The store pushed something.
    pub(super) fn on_push(&self, push: &PushInfo) {
        let (PushKind::Message, [channel, text]) = (&push.kind, &*push.data) else { return };
        let Ok(channel) = String::from_redis_value_ref(channel) else { return };
        let Some(time) = busy_for(text) else { return };
        let channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for gate in channels.get(&channel).into_iter().flatten() {
            gate.busy_for(time);
        }
    }
}

/// The time in a message.
fn busy_for(text: &Value) -> Option<Duration> {
    i64::from_redis_value_ref(text).ok().map(|micros| duration(micros as f64))
}

static GATE: LazyLock<Script> = LazyLock::new(|| Script::new(&gate_script()));
static LAYOUT: LazyLock<u16> = LazyLock::new(gate_layout);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fleet::{Kind, redis::cluster::slot},
        random::split_mix,
    };

    #[test]
    fn all_keys_of_a_gate_and_its_channel_are_in_one_slot() {
        let mut slots = std::collections::HashSet::new();
        for number in 0..1_000 {
            let fleet = format!("fleet-{:x}", split_mix(number) % 7);
            let name = Name::new(&fleet.into(), Kind::Gate, &format!("host-{number}/{{a}}"));
            let GateKeys { state, queue, waiting, channel } = GateKeys::new(&name);
            let of = slot(&keys::key(&name));
            assert_eq!([&state, &queue, &waiting, &channel].map(|key| slot(key)), [of; 4]);
            slots.insert(of);
        }
        assert!(slots.len() > 900, "gates are spread over the servers");
    }
}
