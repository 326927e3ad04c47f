//! Closed backends: what other processes report, and who listens to it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redis::{FromRedisValue, PushInfo, PushKind, Value};

use super::keys;
use crate::fleet::{Closing, Listener, Name};

/// Who listens, by the hash of the backend's name.
#[derive(Default)]
pub(super) struct Listeners(Mutex<HashMap<String, Vec<Listener>>>);

impl Listeners {
    pub(super) fn add(&self, backend: &Name, listener: Listener) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.entry(keys::hash(backend)).or_default().push(listener);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// A message of the connection.
    pub(super) fn on_push(&self, push: &PushInfo) {
        if push.kind == PushKind::Message
            && let [_, message] = &*push.data
            && let Ok(message) = String::from_redis_value_ref(message)
        {
            self.on_message(&message);
        }
    }

    /// The answer of `closed.lua`.
    pub(super) fn on_all(&self, answer: &Value) {
        let messages = Vec::<String>::from_redis_value_ref(answer).unwrap_or_default();
        messages.iter().for_each(|message| self.on_message(message));
    }

    /// A message that is none is ignored: a store may send anything.
    fn on_message(&self, message: &str) {
        let Some((hash, closing)) = read(message) else { return };
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_backend) = listeners.get_mut(hash) {
            of_backend.retain(|listener| listener(closing));
            if of_backend.is_empty() {
                listeners.remove(hash);
            }
        }
    }
}

/// The field of a closing.
pub(super) fn field(backend: &Name, closing: &Closing) -> String {
    format!("{}.{}", keys::hash(backend), closing.what)
}

pub(super) fn read(message: &str) -> Option<(&str, Closing)> {
    let mut words = message.split(' ');
    let (hash, what) = words.next()?.split_once('.')?;
    let mut duration = || words.next()?.parse().ok().map(Duration::from_micros);
    let (left, said) = (duration()?, duration()?);
    let why = words.next()?.parse().ok()?;
    Some((hash, Closing { what: what.parse().ok()?, left, said, why }))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::fleet::Kind;

    #[test]
    fn what_is_written_is_read_and_what_is_no_message_is_ignored() {
        let name = |of: &str| Name::new(&"prod".into(), Kind::Cooldown, of);
        let closing = Closing {
            what: 259,
            left: Duration::from_millis(1_500),
            said: Duration::from_secs(9),
            why: 2,
        };
        let message = format!("{} 1500000 9000000 2", field(&name("east"), &closing));
        assert_eq!(read(&message), Some((&*keys::hash(&name("east")), closing)));
        for message in [
            "",
            "a",
            "a.1",
            "a.1 2",
            "a.1 2 3",
            "a.x 2 3 0",
            "a.1 -2 3 0",
            "a.1 x 3 0",
            "a.1 2 3 x",
        ] {
            assert_eq!(read(message), None, "{message}");
        }
        let (listeners, heard) = (Listeners::default(), Arc::new(Mutex::new(Vec::new())));
        let hears = Arc::clone(&heard);
        listeners.add(
            &name("east"),
            Box::new(move |closing| {
                hears.lock().unwrap().push(closing);
                // It has gone after the second one.
                hears.lock().unwrap().len() < 2
            }),
        );
        listeners.on_message(&message);
        listeners.on_message(&message.replace(&keys::hash(&name("east")), "other"));
        listeners.on_message("nonsense");
        assert!(!listeners.is_empty());
        listeners.on_message(&message);
        listeners.on_message(&message);
        assert_eq!(*heard.lock().unwrap(), [closing; 2]);
        assert!(listeners.is_empty());
    }
}
