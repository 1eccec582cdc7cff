//! The `nodewarden` binary.

fn main() {}
