//! One call of a client library that shows neither its requests nor its responses.

use std::{
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Extensions, Response};
use tower_spillover::Served;

tokio::task_local! {
    static CURRENT: Arc<Current>;
}

struct Current {
    extensions: Extensions,
    served: Mutex<Vec<Served>>,
}

/// One call of a client library, such as async-openai or rig, that shows neither its requests nor its
/// responses: extensions for all requests of the call, and how each of them was [`Served`].
///
/// ```
/// use std::time::Duration;
///
/// use tower_spillover::{MaxWait, Priority};
/// use tower_spillover_adapters::Call;
///
/// # async fn example(ask: impl Future<Output = ()>) {
/// let call = Call::new().with(MaxWait(Duration::from_secs(1))).with(Priority::from("batch"));
/// let (answer, served) = call.run(ask).await; // `client.chat().create(request)`
/// for served in served {
///     println!("{served}"); // ptu-east 429 (43 ms), ptu-east 200; waited 43 ms
/// }
/// # }
/// ```
///
/// It reaches the requests that are sent while its future is polled: not those of tasks that the
/// future spawns. async-openai and rig send theirs without a task; a stream is read after its head
/// arrived, by which time its request was served.
///
/// A call inside of another hides it.
#[derive(Clone, Debug, Default)]
pub struct Call {
    extensions: Extensions,
}

impl Call {
    /// A call whose requests carry nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `extension` into every request of the call:
    /// [`MaxWait`](tower_spillover::MaxWait), [`Deadline`](tower_spillover::Deadline),
    /// [`Priority`](tower_spillover::Priority), [`StickTo`](tower_spillover::StickTo), or one of yours.
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        self.extensions.insert(extension);
        self
    }

    /// Runs `future`, and returns its output and the accounts of its requests in the order of their
    /// answers. A request that ended with an error has none.
    pub async fn run<F: Future>(self, future: F) -> (F::Output, Vec<Served>) {
        let Self { extensions } = self;
        let current = Arc::new(Current { extensions, served: Mutex::default() });
        let output = CURRENT.scope(Arc::clone(&current), future).await;
        let served = mem::take(&mut *current.served());
        (output, served)
    }
}

impl Current {
    fn served(&self) -> MutexGuard<'_, Vec<Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the extensions of the call under way into those of a request.
#[allow(dead_code, reason = "without an adapter there is no request")]
pub(crate) fn extend(extensions: &mut Extensions) {
    // Outside of a call there are none.
    let _ = CURRENT.try_with(|current| extensions.extend(current.extensions.clone()));
}

/// Notes how a request of the call under way was served.
#[allow(dead_code, reason = "without an adapter there is no response")]
pub(crate) fn note<B>(response: &Response<B>) {
    let Some(served) = response.extensions().get::<Served>() else { return };
    let _ = CURRENT.try_with(|current| current.served().push(served.clone()));
}

#[cfg(test)]
mod tests {
    use tower_spillover::Priority;

    use super::*;

    fn priority() -> Option<Priority> {
        let mut extensions = Extensions::new();
        extend(&mut extensions);
        extensions.remove()
    }

    #[tokio::test]
    async fn a_request_inside_of_a_call_has_its_extensions_and_one_outside_has_none() {
        let call = Call::new().with(Priority::from("batch"));
        let (inside, served) = call.run(async { priority() }).await;
        assert_eq!((inside, priority()), (Some(Priority::from("batch")), None));
        assert!(served.is_empty());
    }

    #[tokio::test]
    async fn a_call_inside_of_another_hides_it() {
        let inner = || Call::new().with(Priority::from("inner")).run(async { priority() });
        let outer = Call::new().with(Priority::from("outer"));
        let ((first, (second, _)), _) = outer.run(async { (priority(), inner().await) }).await;
        assert_eq!((first, second), (Some("outer".into()), Some("inner".into())));
    }

    #[tokio::test]
    async fn a_task_of_its_own_is_no_part_of_the_call() {
        let call = Call::new().with(Priority::from("batch"));
        let (spawned, _) = call.run(async { tokio::spawn(async { priority() }).await }).await;
        assert_eq!(spawned.expect("it ends"), None);
    }
}
