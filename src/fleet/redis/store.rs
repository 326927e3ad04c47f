//! What a fleet asks of its store, by scripts in Redis.

use std::{
    future::ready,
    sync::{Arc, LazyLock, atomic::Ordering},
    time::Duration,
};

use futures_core::future::BoxFuture;
use redis::{FromRedisValue, Script, Value};

use super::{
    RedisStore, closings,
    gate::GateKeys,
    ids::{self, Prefix, RECALL, REMEMBER},
    keys,
};
use crate::fleet::{
    Allowance, Closing, GateCall, GateNews, GateReply, IdHolder, Leased, Listener, Name, OnStored,
    RateLimit, Store, Taken, Unreachable,
    budget::{MAX_WHOLE, micros},
};

impl Store for RedisStore {
    fn join(&self, fleet: &str) {
        let membership = Arc::clone(self.shared.fleets().entry(fleet.into()).or_default());
        membership.handles.fetch_add(1, Ordering::Relaxed);
        self.shared.courier.get_or_init(|| self.start());
    }

    fn leave(&self, fleet: &str) {
        let membership = self.shared.fleets().get(fleet).cloned();
        let Some(membership) = membership else { return };
        if membership.handles.fetch_sub(1, Ordering::Relaxed) == 1 {
            let (key, id) = (keys::replicas(fleet), self.shared.id.clone());
            // Otherwise it counts until its last report is too old.
            self.tell(move |link| async move {
                let _ = link.script(&LEAVE, &[&key], &[id.as_bytes()]).await;
            });
        }
    }

    fn is_up(&self) -> bool {
        self.shared.courier.get().is_some_and(|(_, health)| health.is_up())
    }

    fn replicas(&self, fleet: &str) -> u32 {
        let fleets = self.shared.fleets();
        fleets.get(fleet).map_or(1, |it| it.replicas.load(Ordering::Relaxed).max(1))
    }

    fn set_timeout(&self, timeout: Duration) {
        if let Some((_, health)) = self.shared.courier.get() {
            health.set_timeout(timeout);
        }
    }

    fn take(
        &self,
        name: &Name,
        from: Allowance,
        amount: u64,
    ) -> BoxFuture<'static, Result<Taken, Unreachable>> {
        let key: Arc<str> = keys::key(name).into();
        let undone = Arc::clone(&key);
        let rule = [from.limit, micros(from.window), amount];
        let [limit, window, amount] = rule.map(|it| it.min(MAX_WHOLE).to_string());
        let change = format!("-{amount}");
        self.ask(
            move |link| async move {
                let arguments = [b"", limit.as_bytes(), window.as_bytes(), amount.as_bytes()];
                taken(&link.script(&TAKE, &[&key], &arguments).await?)
            },
            move |link, taken| async move {
                if let Taken::Granted { window, .. } = taken {
                    let window = window.to_string();
                    let arguments = [window.as_bytes(), change.as_bytes()];
                    let _ = link.script(&CORRECT, &[&undone], &arguments).await;
                }
            },
        )
    }

    fn lease(
        &self,
        name: &Name,
        limit: RateLimit,
        most: u32,
    ) -> BoxFuture<'static, Result<Leased, Unreachable>> {
        let key = keys::key(name);
        let arguments = [limit.per_second.to_string(), most.to_string()];
        self.ask(
            move |link| async move {
                let [per_second, most] = arguments.each_ref().map(String::as_bytes);
                leased(&link.script(&LEASE, &[&key], &[b"", per_second, most]).await?)
            },
            // What is granted too late is lost, until the bucket fills again.
            |_, _| ready(()),
        )
    }

    fn close(&self, backend: &Name, closing: Closing) {
        let (key, channel) = (keys::closings(backend.fleet()), keys::channel(backend.fleet()));
        let field = closings::field(backend, &closing);
        self.tell(move |link| async move {
            let times = [closing.left, closing.said].map(|time| micros(time).to_string());
            let [left, said] = times.each_ref().map(String::as_bytes);
            let why = closing.why.to_string();
            let arguments = [channel.as_bytes(), field.as_bytes(), left, said, why.as_bytes()];
            let _ = link.script(&CLOSE, &[&key], &arguments).await;
        });
    }

    fn follow(&self, backend: &Name, listener: Listener) {
        self.shared.listeners.add(backend, listener);
        let (shared, fleet) = (Arc::downgrade(&self.shared), backend.fleet().to_owned());
        self.tell(move |link| async move {
            if let Some(shared) = shared.upgrade()
                && let Err(error) = shared.listen(&link, &fleet).await
            {
                link.on_error(&error);
            }
        });
    }

    fn keeps_ids(&self) -> bool {
        self.settings.secret.is_some()
    }

    fn remember(
        &self,
        fleet: &str,
        ids: Vec<(Box<[u8]>, IdHolder)>,
        age: Duration,
        on_stored: OnStored,
    ) {
        let Some(secret) = self.settings.secret.clone() else { return };
        let fleet = fleet.to_owned();
        self.tell(move |link| async move {
            let prefix = Prefix { fleet: &fleet, age };
            let names: Vec<&[u8]> = ids.iter().map(|(id, _)| &**id).collect();
            let arguments = |places: &[usize]| {
                ids::to_remember(&secret, age, places.iter().map(|&place| &ids[place]))
            };
            let kept = ids::run(&link, &REMEMBER, &secret, prefix, &names, arguments).await;
            if let Ok(kept) = kept
                && let Some(kept) = kept.into_iter().collect::<Option<Vec<_>>>()
            {
                on_stored(&kept);
            }
        });
    }

    fn recall(
        &self,
        fleet: &str,
        ids: Vec<Box<[u8]>>,
        age: Duration,
    ) -> BoxFuture<'static, Result<Vec<Option<IdHolder>>, Unreachable>> {
        let Some(secret) = self.settings.secret.clone() else {
            return Box::pin(ready(Err(Unreachable)));
        };
        let fleet = fleet.to_owned();
        self.ask(
            move |link| async move {
                let prefix = Prefix { fleet: &fleet, age };
                let names: Vec<&[u8]> = ids.iter().map(|id| &**id).collect();
                let arguments = |places: &[usize]| {
                    ids::to_recall(&secret, age, places.iter().map(|&place| names[place]))
                };
                ids::run(&link, &RECALL, &secret, prefix, &names, arguments).await
            },
            |_, _| ready(()),
        )
    }

    fn correct(&self, name: &Name, window: u64, change: i64) {
        let key = keys::key(name);
        self.tell(move |link| async move {
            let arguments = [window.to_string(), change.to_string()];
            let arguments = arguments.each_ref().map(String::as_bytes);
            let _ = link.script(&CORRECT, &[&key], &arguments).await;
        });
    }

    fn gate(
        &self,
        name: &Name,
        call: GateCall,
    ) -> BoxFuture<'static, Result<GateReply, Unreachable>> {
        let asked = Arc::new((GateKeys::new(name), call));
        let undone = Arc::clone(&asked);
        self.ask(
            move |link| async move {
                let (keys, call) = &*asked;
                Ok(keys.run(&link, call).await?)
            },
            move |link, undelivered| async move {
                let (keys, call) = &*undone;
                if let Some(undo) = call.undo(&undelivered) {
                    let _ = keys.run(&link, &undo).await;
                }
            },
        )
    }

    fn tell_gate(&self, name: &Name, call: GateCall) {
        let keys = GateKeys::new(name);
        self.tell(move |link| async move {
            let _ = keys.run(&link, &call).await;
        });
    }

    fn listen(&self, name: &Name, news: GateNews) {
        let channel = GateKeys::new(name).channel;
        if self.shared.gate_listeners.add(channel.clone(), news) {
            // Without a connection, that follows when there is one.
            self.tell(move |link| async move {
                let _ = link.subscribe(&channel).await;
            });
        }
    }
}

/// An answer of `take.lua`. Every number is limited: a store may answer anything.
pub(super) fn taken(value: &Value) -> Result<Taken, Unreachable> {
    let [is_granted, window, left, time] =
        <[i64; 4]>::from_redis_value_ref(value).map_err(|_| Unreachable)?;
    let time = u64::try_from(time).unwrap_or_default();
    let time = Duration::from_micros(time).min(MAX_WINDOW);
    Ok(match is_granted {
        1 => Taken::Granted {
            window: u64::try_from(window).map_err(|_| Unreachable)?,
            left: u64::try_from(left).unwrap_or_default(),
            closes_in: time,
        },
        _ => Taken::Spent { opens_in: time },
    })
}

/// An answer of `lease.lua`.
pub(super) fn leased(value: &Value) -> Result<Leased, Unreachable> {
    let [is_granted, number] = <[i64; 2]>::from_redis_value_ref(value).map_err(|_| Unreachable)?;
    let number = u64::try_from(number).unwrap_or_default();
    Ok(match is_granted {
        1 => Leased::Granted(u32::try_from(number).unwrap_or_default()),
        _ => Leased::Spent { opens_in: Duration::from_micros(number).min(MAX_WINDOW) },
    })
}

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));
static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lease.lua")));
static CORRECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("correct.lua")));
static CLOSE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("close.lua")));
static LEAVE: LazyLock<Script> =
    LazyLock::new(|| Script::new("return redis.call('ZREM', KEYS[1], ARGV[1])"));
const MAX_WINDOW: Duration = Duration::from_secs(365 * 24 * 3_600);

#[cfg(test)]
mod tests;
