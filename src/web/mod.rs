//! The two listeners: metrics for everybody, admin for who has the token.

pub mod page;
