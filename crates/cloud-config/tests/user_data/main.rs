//! User data as it is rendered, as it is refused, and the program that does both.

mod program;
mod refusals;
mod scripts;
mod support;
mod templates;
