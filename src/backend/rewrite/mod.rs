//! Rewrites one request for one backend: URI, deployment, `model`.
