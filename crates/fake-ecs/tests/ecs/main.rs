//! The fake, asked as its clients ask it: by JSON, on virtual time.

mod fronts;
mod service;
mod services;
mod support;
mod tasks;
