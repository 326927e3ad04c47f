//! One runtime per core: a connection, its requests and their backends' stay on one thread.

use std::{
    cell::Cell,
    io,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// The threads that serve connections.
///
/// A request that stays on one thread wakes no other: a runtime whose threads share their tasks
/// spends a good part of a short request on handing it from one core to another and back. Envoy and
/// nginx are made alike. Dropping this ends the threads, and what they serve.
pub(super) struct Workers {
    seats: Box<[Seat]>,
}

struct Seat {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped.
    _stay: oneshot::Sender<()>,
}

/// A connection on its thread. It counts until it is dropped.
pub(super) struct Seated(Arc<AtomicUsize>);

impl Workers {
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(super) fn start() -> io::Result<Self> {
        let seats = (0..count()).map(Seat::new).collect::<io::Result<_>>()?;
        Ok(Self { seats })
    }

    /// Has the thread with the fewest connections serve `stream`.
    pub(super) fn serve<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream, Seated) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let fewest = self.seats.iter().min_by_key(|seat| seat.connections.load(Relaxed));
        let seat = fewest.expect("there is a core");
        seat.connections.fetch_add(1, Relaxed);
        let seated = Seated(Arc::clone(&seat.connections));
        // It leaves the poller of the thread that accepted it.
        let Ok(stream) = stream.into_std() else { return };
        seat.runtime.spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                serve(stream, seated).await;
            }
        });
    }
}

impl Seat {
    fn new(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stay, end) = oneshot::channel::<()>();
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            INDEX.set(index);
            let _ = runtime.block_on(end);
            // What did not end in the drain time is cut off.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), _stay: stay })
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How many threads serve.
pub(super) fn count() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Which of them this one is; the first for any other thread.
pub(super) fn here() -> usize {
    INDEX.get()
}

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}
