//! A gate that is closed for an hour, and requests waiting at it.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, task::noop_waker_ref};
use http::Request;
use http_body_util::Full;
use tower::{Layer, Service, layer::layer_fn, service_fn};
use tower_spillover::{SmartFallbackLayer, gate::Gate};

use super::leaf::{Leaf, template};

/// A layer with the default gate, over a primary that refused its first request.
pub struct Lot {
    pub gate: Gate,
    asked: Rc<Cell<usize>>,
    send: Box<dyn Fn(Request<Full<Bytes>>) -> Parked>,
}

/// A waiting request.
pub type Parked = Pin<Box<dyn Future<Output = ()>>>;

impl Lot {
    /// Needs a runtime with timers, as do the parked requests.
    pub fn closed() -> Self {
        let (gate, asked) = (Gate::new(), Rc::new(Cell::new(0)));
        let (counter, leaf) = (Rc::clone(&asked), Leaf::new());
        let mut refusing = leaf.refusing();
        let primary = service_fn(move |request: Request<Full<Bytes>>| {
            counter.set(counter.get() + 1);
            refusing.call(request)
        });
        let layer = SmartFallbackLayer::new(
            layer_fn(move |()| primary.clone()),
            layer_fn(move |()| leaf.clone()),
        );
        let service = layer.longest_cooldown(HOUR).max_wait(24 * HOUR).gate(gate.clone()).layer(());
        let send =
            Box::new(move |request| Box::pin(service.clone().call(request).map(drop)) as Parked);
        let lot = Self { gate, asked, send };
        drop(lot.park());
        // The gate keeps a permanent list of its ranks, which it creates at the first request that
        // waits.
        drop(lot.park());
        lot
    }

    /// Sends a request with its own head and body of 2 KiB, and leaves it waiting.
    pub fn park(&self) -> Parked {
        let body = Bytes::from(vec![b'x'; BODY]);
        let mut parked = (self.send)(Request::from_parts(template(), Full::new(body)));
        let polled = parked.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
        assert_eq!(polled, Poll::Pending, "the gate is closed");
        parked
    }

    /// How often the primary was called.
    pub fn asked(&self) -> usize {
        self.asked.get()
    }
}

pub const BODY: usize = 2 << 10;
const HOUR: Duration = Duration::from_secs(3_600);
