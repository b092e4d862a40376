//! What the tests of drivers and of their callers share: a simulated engine on virtual time ([`sim`]), and the
//! conformance suite that every driver passes ([`conformance`]).

pub mod conformance;
pub mod sim;
