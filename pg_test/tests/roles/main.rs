//! Hostile roles: what every role may do as a real login, what it tries nevertheless, and what a secret leaves behind.

mod caller;
mod canary;
mod claims;
mod contract;
mod hostile;
mod input;
mod leaks;
mod login;
mod matrix;
mod planted;
mod pooler;
mod sqlsmith;
mod values;
