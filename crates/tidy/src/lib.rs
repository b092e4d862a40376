//! The repository's rules, as tests: which crate may depend on which (`tests/arrows.rs`), what every file keeps to
//! (`tests/files.rs`), and that what is written about the code is so (`tests/documents.rs`).
//!
//! There is nothing to use here.
