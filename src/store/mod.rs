//! The durable side: SQL on the extension's own tables.

pub mod cleanup;
pub mod feed;
pub mod feed_state;
pub mod flush;
pub mod load;
pub mod own_write;
mod owner_rights;
mod planning;
pub mod rows;
pub mod session;
pub mod statement;
pub mod value;
