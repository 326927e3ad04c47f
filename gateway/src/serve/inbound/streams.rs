//! The streams of an HTTP/2 connection, each in a task of its own.

use std::{sync::Arc, time::Duration};

use hyper::rt::Executor;

use crate::serve::{activity::Activity, delivery::Delivering};

/// Runs what hyper asks it to: the exchange on one stream, right after its request was handed to the
/// service. One whose client does not take its answer is dropped, which resets the stream; the others
/// of the connection go on.
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
