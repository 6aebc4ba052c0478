//! The database in which people are careless: its names, which they change, and its roles.

use std::sync::{RwLock, RwLockReadGuard};

use pg_presence_test::{Cluster, Install, wait_for, wait_until};
use postgres::{Client, NoTls, error::SqlState};

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Superuser,
    /// The owner of the tables: a superuser, or the role that also owns the schema and the database.
    Owner,
    DatabaseOwner,
    /// A role that careless people grant too much to.
    Eve,
    /// A role that may act for its own identity.
    Client,
    /// A role that may act for everybody.
    Service,
    Reader,
    Holder,
}

/// The names that change during a walk.
pub struct Names {
    pub database: String,
    /// The extension's schema, quoted.
    pub schema: String,
    /// How often either has been changed.
    pub generation: u64,
}

/// One database with the extension.
pub struct Place<'c> {
    pub cluster: &'c Cluster,
    names: RwLock<Names>,
    number: u64,
    /// Whether tables, schema and database belong to a role that is no superuser.
    is_owned: bool,
    /// The tables, in the order of their creation.
    tables: [u32; 5],
}

/// The names of the tables when they are installed, and in the statements of a damage.
pub const TABLES: [&str; 5] = [
    "user_sessions",
    "user_presence",
    "presence_changes",
    "_feed_state",
    "declared_statuses",
];

/// The body of a trigger function of others: it tells if it runs with any rights but those of whoever wrote the row by
/// plain SQL.
const TRAP: &str = "BEGIN
    IF NOT (current_user = session_user AND current_setting('application_name') IN ('careless', 'psql')) THEN
        RAISE LOG 'code of others runs as %', current_user;
    END IF;
    RETURN coalesce(NEW, OLD);
END";

impl<'c> Place<'c> {
    /// Creates the database and the roles. `number` makes their names unique, and decides who owns what.
    pub fn new(cluster: &'c Cluster, number: u64) -> Place<'c> {
        let database = cluster.database_with(Install::Presence);
        let mut place = Place {
            cluster,
            names: RwLock::new(Names {
                database: database.name.clone(),
                schema: "presence".to_owned(),
                generation: 0,
            }),
            number,
            is_owned: number % 2 == 1,
            tables: [0; 5],
        };
        let mut superuser = place.connect();
        for (table, oid) in TABLES.iter().zip(&mut place.tables) {
            let sql = format!("SELECT 'presence.{table}'::regclass::oid");
            *oid = superuser.query_one(&sql, &[]).expect("a table").get(0);
        }
        place.run(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {owner2}; CREATE ROLE {eve} LOGIN; CREATE ROLE {bob} LOGIN;
             CREATE ROLE {client} LOGIN; CREATE ROLE {reader} LOGIN; CREATE ROLE {holder} LOGIN;
             CREATE ROLE {service} LOGIN; CREATE ROLE {client2} LOGIN; CREATE ROLE {service2} LOGIN;
             SELECT {s}.grant_client({client'}), {s}.grant_client({client2'}), {s}.grant_reader({reader'}),
                    {s}.grant_holder({holder'}), {s}.grant_service({service'}), {s}.grant_service({service2'});
             GRANT USAGE ON SCHEMA {s} TO {eve}, {bob};
             ALTER DATABASE {db} OWNER TO {owner}; ALTER ROLE {owner} CREATEDB;
             CREATE SCHEMA eve AUTHORIZATION {eve}; GRANT USAGE ON SCHEMA eve TO PUBLIC;
             CREATE FUNCTION eve.trap() RETURNS trigger LANGUAGE plpgsql AS $trap$ {trap} $trap$;
             CREATE FUNCTION eve.is_trap(anyelement) RETURNS bool LANGUAGE plpgsql AS
                 $trap$ BEGIN RAISE LOG 'code of others runs as %', current_user; RETURN true; END $trap$;
             ALTER FUNCTION eve.trap() OWNER TO {eve}; ALTER FUNCTION eve.is_trap(anyelement) OWNER TO {eve}",
        );
        if place.is_owned {
            place.run(
                "ALTER SCHEMA {s} OWNER TO {owner}; ALTER TABLE {user_sessions} OWNER TO {owner};
                 ALTER TABLE {user_presence} OWNER TO {owner}; ALTER TABLE {presence_changes} OWNER TO {owner};
                 ALTER TABLE {_feed_state} OWNER TO {owner}; ALTER TABLE {declared_statuses} OWNER TO {owner}",
            );
        }
        place
    }

    /// Returns the current names. While they are held, they do not change.
    pub fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().expect("no panic while renaming")
    }

    pub fn schema(&self) -> String {
        self.names().schema.clone()
    }

    pub fn generation(&self) -> u64 {
        self.names().generation
    }

    /// The name of a role, not quoted.
    pub fn role(&self, actor: Actor) -> String {
        let n = self.number;
        match actor {
            Actor::Superuser => "postgres".to_owned(),
            Actor::Owner if !self.is_owned => "postgres".to_owned(),
            Actor::Owner | Actor::DatabaseOwner => format!("owner_{n}"),
            // Names that have to be quoted.
            Actor::Eve => format!("eve's {n}"),
            Actor::Client => format!("client_{n}"),
            Actor::Service => format!("service_{n}"),
            Actor::Reader => format!("reader_{n}"),
            Actor::Holder => format!("holder_{n}"),
        }
    }

    /// Connects as superuser.
    pub fn connect(&self) -> Client {
        self.connect_as(Actor::Superuser)
    }

    pub fn connect_as(&self, actor: Actor) -> Client {
        let names = self.names();
        let mut config = self.cluster.config(&names.database, &self.role(actor));
        config.application_name("careless");
        // The database may be about to be renamed, or a crash to be over: that is for others to notice.
        wait_for("a connection", || config.connect(NoTls).ok())
    }

    /// Connects for a step, whose statements are given up when they wait for long.
    pub fn session(&self, actor: Actor) -> Client {
        let mut client = self.connect_as(actor);
        client
            .batch_execute("SET lock_timeout = '5s'; SET statement_timeout = '60s'")
            .expect("settings");
        client
    }

    /// Runs SQL with placeholders as superuser.
    pub fn run(&self, sql: &str) {
        let sql = self.fill(sql, 0);
        if let Err(error) = self.connect().batch_execute(&sql) {
            panic!("{sql}: {error:?}");
        }
    }

    /// Replaces the placeholders of a statement: `{s}` is the schema, `{user_sessions}` the current name of that table,
    /// `{eve}` a role, `{eve'}` its name as a literal, `{db}` the database,
    /// `{n}` the number of the step, `{w}` that of the walk, and `{trap}` the body of a trigger function of others.
    pub fn fill(&self, sql: &str, step: u64) -> String {
        let n = self.number;
        let names = self.names();
        let mut filled = sql
            .replace("{s}", &names.schema)
            .replace("{db}", &names.database)
            .replace("{w}", &format!("{n}"))
            .replace("{n}", &format!("{step}"))
            .replace("{trap}", TRAP);
        for role in ["eve", "bob"] {
            filled = filled
                .replace(&format!("{{{role}}}"), &format!("\"{role}'s {n}\""))
                .replace(&format!("{{{role}'}}"), &format!("'\"{role}''s {n}\"'"));
        }
        for role in [
            "owner", "owner2", "client", "client2", "reader", "holder", "service", "service2",
        ] {
            filled = filled
                .replace(&format!("{{{role}}}"), &format!("{role}_{n}"))
                .replace(&format!("{{{role}'}}"), &format!("'{role}_{n}'"));
        }
        drop(names);
        if TABLES.iter().any(|table| filled.contains(&format!("{{{table}}}"))) {
            let mut superuser = self.connect();
            for (table, oid) in TABLES.iter().zip(self.tables) {
                let sql = "SELECT format('%s.%I', relnamespace::regnamespace, relname) FROM pg_class WHERE oid = $1";
                let row = superuser.query_opt(sql, &[&oid]).expect("the catalog");
                let name: String = row.map_or_else(|| format!("missing.{table}"), |row| row.get(0));
                filled = filled.replace(&format!("{{{table}}}"), &name);
            }
        }
        filled
    }

    /// Renames the schema.
    pub fn rename_schema(&self, to: &str) -> String {
        let mut names = self.names.write().expect("no panic while renaming");
        let sql = format!("ALTER SCHEMA {} RENAME TO {to}", names.schema);
        let config = self.cluster.config(&names.database, "postgres");
        let mut client = config.connect(NoTls).expect("to connect");
        // Whoever uses it meanwhile may be waited for, and make this one a victim of a deadlock.
        wait_until("the schema is renamed", || match client.batch_execute(&sql) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED), "{error:?}");
                false
            }
        });
        to.clone_into(&mut names.schema);
        names.generation += 1;
        sql
    }

    /// Renames the database, without which nobody may be connected to it: all connections are terminated first. The worker
    /// leaves by itself.
    pub fn rename_database(&self, to: &str) -> String {
        let mut names = self.names.write().expect("no panic while renaming");
        let sql = format!("ALTER DATABASE {} RENAME TO {to}", names.database);
        let mut client = self.cluster.connect("postgres");
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = $1 AND backend_type = 'client backend'";
        wait_until("the database is renamed", || {
            client.query(others, &[&names.database]).expect("the processes");
            match client.batch_execute(&sql) {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.code(), Some(&SqlState::OBJECT_IN_USE), "{error:?}");
                    false
                }
            }
        });
        to.clone_into(&mut names.database);
        names.generation += 1;
        sql
    }

    /// Drops the database, and the roles, which belong to the whole server.
    pub fn drop_database(&self) {
        let name = self.names().database.clone();
        let mut postgres = self.cluster.connect("postgres");
        let sql = format!("DROP DATABASE {name} WITH (FORCE)");
        postgres.batch_execute(&sql).expect("to drop the database");
    }
}
