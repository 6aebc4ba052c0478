//! A test's own database, and the roles in it.

use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, NoTls};
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::listener::Listener;
use crate::presence::Presence;
use crate::wait::{wait_for, wait_until};

/// How the extension is installed in a new database.
#[derive(Clone, Copy, Debug)]
pub enum Install {
    /// `CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence`
    Presence,
    /// `CREATE EXTENSION pg_presence`, into `public`
    Public,
    /// As `Presence`, in a database of this encoding.
    Encoding(&'static str),
    /// Not at all.
    None,
}

/// A database with a unique name. On a shared server it is dropped with the test.
pub struct Database<'c> {
    pub cluster: &'c Cluster,
    pub name: String,
    schema: &'static str,
}

impl Cluster {
    /// Creates a database with the extension in the schema `presence`.
    pub fn database(&self) -> Database<'_> {
        self.database_with(Install::Presence)
    }

    /// Runs DDL on a database. PostgreSQL gives up after five seconds where somebody is in the database, as its worker or a
    /// connection just closed is for a moment, and where another database is created from the same template.
    pub fn change_database(&self, sql: &str) {
        let mut postgres = self.connect("postgres");
        wait_until(sql, || match postgres.batch_execute(sql) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("55006"), "{sql}: {error:?}");
                false
            }
        });
    }

    /// Creates a database, with the extension installed as given.
    pub fn database_with(&self, install: Install) -> Database<'_> {
        Database::create(self, install)
    }
}

impl<'c> Database<'c> {
    fn create(cluster: &'c Cluster, install: Install) -> Database<'c> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let options = match install {
            Install::Encoding(encoding) => {
                format!("ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
            }
            _ => String::new(),
        };
        cluster.change_database(&format!("CREATE DATABASE {name} {options}"));
        let schema = if matches!(install, Install::Public) {
            "public"
        } else {
            "presence"
        };
        let database = Database { cluster, name, schema };
        match install {
            Install::Presence | Install::Encoding(_) => {
                database.run("CREATE SCHEMA presence; CREATE EXTENSION pg_presence SCHEMA presence");
            }
            Install::Public => database.run("CREATE EXTENSION pg_presence"),
            Install::None => {}
        }
        database
    }

    /// Runs SQL as superuser, on a connection of its own.
    pub fn run(&self, sql: &str) {
        if let Err(error) = self.connect().batch_execute(sql) {
            panic!("{sql}: {error:?}");
        }
    }

    /// Connects as superuser, which is a service.
    pub fn connect(&self) -> Client {
        self.cluster.connect(&self.name)
    }

    /// Connects as a role.
    pub fn connect_as(&self, role: &str) -> Client {
        self.cluster
            .config(&self.name, role)
            .connect(NoTls)
            .unwrap_or_else(|error| panic!("as {role}: {error:?}"))
    }

    /// Returns a listener on the channel `presence`, once the database has its worker.
    pub fn listen(&self) -> Listener {
        self.wait_until_served();
        // Before its first message a worker may still begin a new epoch, and that message would stand for changes made since.
        let mut client = self.connect();
        let sql = format!("SELECT notifications FROM {}.presence_stats", self.schema);
        wait_until("the worker's first message", || {
            client.query_one(&sql, &[]).expect("statistics").get::<_, i64>(0) > 0
        });
        Listener::new(self.connect(), self.connect(), "presence")
    }

    /// Waits until the worker has loaded the sessions and completed a turn of its loop.
    pub fn wait_until_served(&self) {
        let mut client = self.connect();
        let sql = format!(
            "SELECT is_complete AND last_tick_at IS NOT NULL FROM {}.presence_stats",
            self.schema
        );
        wait_until("the worker serves the database", || {
            let row = client.query_one(&sql, &[]).expect("statistics");
            row.get::<_, Option<bool>>(0).unwrap_or(false)
        });
    }

    /// The feed's position: epoch and seq.
    pub fn cursor(&self) -> (String, i64) {
        let sql = format!("SELECT epoch, seq FROM {}.presence_cursor()", self.schema);
        let row = self.connect().query_one(&sql, &[]).expect("a cursor");
        (row.get(0), row.get(1))
    }

    /// Waits until the feed has a change with this number.
    pub fn wait_for_seq(&self, seq: i64) {
        wait_until(&format!("change {seq}"), || self.cursor().1 >= seq);
    }

    /// Returns the process id of this database's worker, once it has one.
    pub fn worker(&self) -> i32 {
        let mut client = self.connect();
        // A new worker may appear before the old one is gone.
        let sql = "SELECT pid FROM pg_stat_activity
                   WHERE datname = current_database() AND backend_type = 'pg_presence worker'
                   ORDER BY backend_start DESC LIMIT 1";
        wait_for("a worker", || {
            client.query_opt(sql, &[]).expect("the processes").map(|row| row.get(0))
        })
    }

    /// Returns the process id of a worker other than this one, once there is one.
    pub fn new_worker(&self, old: i32) -> i32 {
        wait_for("a new worker", || Some(self.worker()).filter(|pid| *pid != old))
    }

    /// Asserts that the worker serves the database: that it writes a new user.
    pub fn assert_served(&self) {
        self.connect().start_written();
    }

    /// Connects as a new client role that acts for this identity.
    pub fn client_for(&self, identity: Uuid) -> Client {
        let mut client = self.connect_as(&self.client());
        client.act_for(identity);
        client
    }

    /// Creates a role that may log in, with USAGE on the schema and nothing else. The name is made unique, as roles belong
    /// to the whole server.
    pub fn role(&self, what: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let role = format!("{what}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {} TO {role}",
            self.schema
        ));
        role
    }

    /// Creates a role granted holder.
    pub fn holder(&self) -> String {
        self.granted("holder")
    }

    /// Creates a role granted client.
    pub fn client(&self) -> String {
        self.granted("client")
    }

    /// Creates a role granted reader.
    pub fn reader(&self) -> String {
        self.granted("reader")
    }

    /// Creates a role granted service.
    pub fn service(&self) -> String {
        self.granted("service")
    }

    fn granted(&self, what: &str) -> String {
        let role = self.role(what);
        self.run(&format!("SELECT {}.grant_{what}('{role}')", self.schema));
        role
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if !self.cluster.is_shared {
            return;
        }
        if let Ok(mut postgres) = self.cluster.config("postgres", "postgres").connect(NoTls) {
            let _ = postgres.batch_execute("SET statement_timeout = '20s'");
            let _ = postgres.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}
