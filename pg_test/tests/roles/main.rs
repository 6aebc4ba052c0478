//! Hostile roles: what every role may do as a real login, what it tries nevertheless, and what a secret leaves behind.

mod contract;
mod matrix;
