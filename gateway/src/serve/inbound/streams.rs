//! Runs the streams of an HTTP/2 connection, each in its own task.

use std::{sync::Arc, time::Duration};

use hyper::rt::Executor;

use crate::serve::{activity::Activity, delivery::Delivering};

/// Spawns hyper's stream tasks: the exchange on one stream, right after its request was passed to
/// the service. If the client does not accept the answer, the task is dropped, which resets the
/// stream; the other streams of the connection go on.
#[derive(Clone)]
pub(crate) struct Streams {
    activity: Arc<Activity>,
    idle_timeout: Duration,
}

impl Streams {
    pub(crate) const fn new(activity: Arc<Activity>, idle_timeout: Duration) -> Self {
        Self { activity, idle_timeout }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        match self.activity.take_delivery() {
            Some(delivery) => {
                tokio::spawn(Delivering::new(stream, delivery, self.idle_timeout));
            }
            None => drop(tokio::spawn(stream)),
        }
    }
}
