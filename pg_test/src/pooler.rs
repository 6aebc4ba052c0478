//! PgBouncer in front of a server.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, Config, NoTls};

use crate::cluster::Cluster;
use crate::programs::{as_server_user, installed, new_directory};
use crate::wait::wait_until;

/// A pooler in transaction mode, stopped when dropped.
pub struct Pooler {
    dir: PathBuf,
    process: Child,
}

impl Pooler {
    /// Starts a pooler with this many server connections for each role and database, and admits these roles.
    pub fn new(cluster: &Cluster, connections: u32, roles: &[&str]) -> Pooler {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = new_directory(&format!("pooler{number}"));
        let users: String = roles.iter().map(|role| format!("\"{role}\" \"\"\n")).collect();
        fs::write(dir.join("users"), users).expect("to write");
        let settings = format!(
            "[databases]\n\
             * = host={server}\n\
             [pgbouncer]\n\
             unix_socket_dir = {dir}\n\
             listen_port = 6432\n\
             auth_type = trust\n\
             auth_file = {dir}/users\n\
             pool_mode = transaction\n\
             default_pool_size = {connections}\n\
             max_client_conn = 500\n\
             logfile = {dir}/log\n",
            server = cluster.socket_directory().display(),
            dir = dir.display(),
        );
        fs::write(dir.join("settings"), settings).expect("to write");
        // A copy, as the servers' user may not be able to read where it is installed.
        let program = dir.join("pgbouncer");
        fs::copy(installed("pgbouncer"), &program).expect("a copy of pgbouncer");
        let process = as_server_user(&program)
            .arg("--quiet")
            .arg(dir.join("settings"))
            .current_dir(&dir)
            .stdin(Stdio::null())
            .spawn()
            .expect("pgbouncer");
        let pooler = Pooler { dir, process };
        wait_until("the pooler accepts connections", || {
            UnixStream::connect(pooler.dir.join(".s.PGSQL.6432")).is_ok()
        });
        pooler
    }

    /// The directory of the pooler's socket, for `host` in a connection string; the port is 6432.
    pub fn socket_directory(&self) -> &Path {
        &self.dir
    }

    /// Connects through the pooler. Use simple queries: not every version of PgBouncer supports prepared statements.
    pub fn connect_as(&self, database: &str, role: &str) -> Client {
        Config::new()
            .host_path(&self.dir)
            .port(6432)
            .user(role)
            .dbname(database)
            .connect(NoTls)
            .unwrap_or_else(|error| panic!("as {role}: {error:?}"))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("the pooler's log:\n{log}");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
