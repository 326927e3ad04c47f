//! Properties of every configuration file.
