//! What the product must show, on a real engine; see the crate's documentation for what that needs.

mod observing;
