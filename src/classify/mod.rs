//! Turns a response head into an `Outcome`: answered, throttled (with a hint), or failed.
