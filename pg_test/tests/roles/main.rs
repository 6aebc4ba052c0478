//! Hostile roles: what each role may do as a real login, what it tries nevertheless, and where a secret could leak.

mod claims;
mod contract;
mod hostile_settings;
mod login;
mod matrix;
mod planted_objects;
mod pooler;
mod random_calls;
mod random_input;
mod random_values;
mod row_leaks;
mod sqlsmith;
mod token_leaks;
