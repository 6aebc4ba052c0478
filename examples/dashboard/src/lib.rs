//! A users table whose dots turn green, yellow, red and gray by themselves: a small application built on pg_presence, to read and to
//! copy from. Read it in this order:
//!
//! - `schema.sql`: its tables, and the roles it uses
//! - `live_users`: the users and their presence, in memory, shared by all browsers. What changes is told by the package
//!   `clients/rust`, a lossless stream of statuses over one connection
//! - `connect`: the connection string, and time limits
//! - `database`: one transaction per request, with the caller's role and claims
//! - `serve`: the limits of connections, and what a proxy in front must do
//! - `routes`: the HTTP routes, which lead to `login`, `rpc` and `events`, the stream of server-sent events
//! - `assets`: the files of the pages, and the package `clients/js`: sessions and statuses in the browser
//! - `web/users.js`: the page; `web/own-status.js`: the menu by which users declare what they are doing

pub mod assets;
pub mod connect;
pub mod database;
pub mod error;
pub mod events;
pub mod live_users;
pub mod log;
pub mod login;
pub mod request;
pub mod routes;
pub mod rpc;
pub mod serve;
