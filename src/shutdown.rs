//! The one signal that ends the agent.
