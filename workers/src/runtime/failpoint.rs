//! Named points at which a test panics, aborts or pauses this process. They do nothing without the
//! feature `failpoints`, which no release has.

/// `FAILPOINTS="<name>=1*panic"` panics here once; `=1*return` aborts the process here.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        fail::fail_point!($name, |_| std::process::abort());
    };
}
pub(crate) use failpoint;
