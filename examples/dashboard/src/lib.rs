//! A users table whose dots turn green and gray by themselves: a small application built on pg_presence, to read and to
//! copy from. Read it in this order:
//!
//! - `schema.sql`: its tables, and the roles it uses
//! - `follow`: a lossless stream of status changes over one connection; usable on its own
//! - `live_users`: the users and their presence, in memory, shared by all browsers
//! - `database`: one transaction per request, with the caller's role and claims
//! - `routes`: the HTTP routes, and the stream of server-sent events
//! - `assets`: the files of the pages, and the package `clients/js`: sessions and statuses in the browser
//! - `web/users.js`: the page

pub mod assets;
pub mod database;
pub mod error;
pub mod follow;
pub mod live_users;
pub mod routes;
