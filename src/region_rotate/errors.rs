//! Which transport errors send a request to the next backend.

/// Decides whether a transport error sends a request to the next backend.
///
/// The wrapped service's error type is its own, so the layer cannot know which errors came before
/// the request was sent; the default, [`ReturnErrors`], moves none.
pub trait RotateOnError<E> {
    /// Whether the request is to be sent to the next backend after `error`.
    fn rotates(&self, error: &E) -> bool;
}

/// Every transport error is the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReturnErrors;

/// A closure as a [`RotateOnError`]; made by
/// [`RegionRotateLayer::rotate_on_error`](crate::RegionRotateLayer::rotate_on_error).
#[derive(Clone, Copy)]
pub struct ErrorFn<F>(pub(super) F);

impl<E> RotateOnError<E> for ReturnErrors {
    fn rotates(&self, _: &E) -> bool {
        false
    }
}

impl<E, F: Fn(&E) -> bool> RotateOnError<E> for ErrorFn<F> {
    fn rotates(&self, error: &E) -> bool {
        (self.0)(error)
    }
}

impl<F> std::fmt::Debug for ErrorFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ErrorFn(..)")
    }
}
