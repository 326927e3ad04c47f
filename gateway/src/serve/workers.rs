//! One runtime per core: a connection, its requests and their backend connections stay on one
//! thread.

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
/// A request that stays on one thread wakes no other: a work-stealing runtime spends a good part of
/// a short request moving it between cores. Envoy and nginx work in the same way. Dropping this
/// ends the threads and everything they serve.
pub(crate) struct Workers {
    workers: Box<[Worker]>,
}

struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// Dropping it ends the thread.
    _stay: oneshot::Sender<()>,
}

/// A connection on its thread, counted until dropped.
pub(crate) struct ConnectionGuard(Arc<AtomicUsize>);

impl Workers {
    /// # Errors
    ///
    /// If the system cannot create a thread.
    pub(crate) fn start() -> io::Result<Self> {
        let workers = (0..count()).map(Worker::new).collect::<io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// Unfinished tasks: of connections, and of connections to backends.
    pub(crate) fn tasks(&self) -> usize {
        self.workers.iter().map(|worker| worker.runtime.metrics().num_alive_tasks()).sum()
    }

    /// Serves `stream` on the thread with the fewest connections.
    pub(crate) fn serve<F>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream, ConnectionGuard) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let fewest = self.workers.iter().min_by_key(|worker| worker.connections.load(Relaxed));
        let worker = fewest.expect("there is a core");
        worker.connections.fetch_add(1, Relaxed);
        let guard = ConnectionGuard(Arc::clone(&worker.connections));
        // Deregister from the accepting thread's reactor.
        let Ok(stream) = stream.into_std() else { return };
        worker.runtime.spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                serve(stream, guard).await;
            }
        });
    }
}

impl Worker {
    fn new(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stay, end) = oneshot::channel::<()>();
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            INDEX.set(index);
            let _ = runtime.block_on(end);
            // Cuts off whatever did not end in the drain time.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), _stay: stay })
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The number of serving threads.
pub(crate) fn count() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The index of the current one; 0 on any other thread.
pub(crate) fn here() -> usize {
    INDEX.get()
}

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}
