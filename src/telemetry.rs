//! How the agent speaks about itself on standard error.
