//! A users table whose dots turn green and gray by themselves: a small application on
//! pg_presence, to look at and to copy from. Read it in this order:
//!
//! - `schema.sql`: its tables, and the roles it acts as
//! - `follow`: one connection that learns of every change; stands for itself
//! - `board`: what all browsers see, in memory
//! - `database`: one transaction for a request, as the role and with the claims of who asked
//! - `routes`: the addresses, and the stream of server-sent events
//! - `web/presence.js`: sessions and heartbeats in the browser; stands for itself
//! - `web/users.js`: the page

pub mod board;
pub mod database;
pub mod failure;
pub mod follow;
pub mod routes;
