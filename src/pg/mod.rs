//! PostgreSQL APIs that pgrx does not provide, and differences between PostgreSQL's major versions.

pub mod background_workers;
pub mod catalog;
pub mod compat;
pub mod errors;
pub mod fault_point;
pub mod installed;
pub mod lineage;
pub mod lock_guard;
mod members;
pub mod memory;
pub mod process_local;
pub mod random;
pub mod shmem;
pub mod text;
pub mod timeout;
