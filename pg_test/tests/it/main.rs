//! One program for all tests, as each program links anew; one module per subject.

mod harness;
mod settings;
