//! Demos: Tender and all the services that it needs in one process. The demo of the mirror is
//! `examples/demo-mirror.rs`, because its relays are a dependency of the tests only.

mod provision;
pub mod zooid;

pub use provision::run;
