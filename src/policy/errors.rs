//! Which transport errors send a request on.

/// Decides whether a transport error sends a request on, to the next backend or tier.
///
/// The wrapped service's error type is its own, so that a layer cannot know which errors came before
/// the request was sent; the default, [`ReturnErrors`], moves none.
pub trait MoveOnError<E> {
    /// Whether the request is to be sent on after `error`.
    fn moves(&self, error: &E) -> bool;
}

/// Every transport error is the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReturnErrors;

/// A closure as a [`MoveOnError`]; made by
/// [`RegionRotateLayer::rotate_on_error`](crate::RegionRotateLayer::rotate_on_error) and
/// [`SmartFallbackLayer::spill_on_error`](crate::SmartFallbackLayer::spill_on_error).
#[derive(Clone, Copy)]
pub struct ErrorFn<F>(pub(crate) F);

impl<E> MoveOnError<E> for ReturnErrors {
    fn moves(&self, _: &E) -> bool {
        false
    }
}

impl<E, F: Fn(&E) -> bool> MoveOnError<E> for ErrorFn<F> {
    fn moves(&self, error: &E) -> bool {
        (self.0)(error)
    }
}

impl<F> std::fmt::Debug for ErrorFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ErrorFn(..)")
    }
}
