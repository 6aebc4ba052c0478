//! What the reader of a page has: a server, a database `app`, and, after the README, the extension and an application in it.

use std::process::Command;

use pg_presence_test::{Cluster, wait_until};
use postgres::Client;

use crate::page::{Block, Page};

/// The user that a JWT names.
pub const USER: &str = "5d1f5c1e-6a4e-4f0e-9a43-0d3c7c2c6a11";

/// The roles that Supabase has.
const SUPABASE: &str = "CREATE ROLE anon NOLOGIN;
     CREATE ROLE authenticated NOLOGIN;
     CREATE ROLE service_role NOLOGIN BYPASSRLS";

/// The database has an owner who is no superuser, as many have, and it can be connected to as each of the roles.
const OWNER: &str = "CREATE ROLE owner LOGIN;
     ALTER DATABASE app OWNER TO owner;
     ALTER TABLE users OWNER TO owner;
     ALTER ROLE web_user LOGIN";

pub struct World {
    pub cluster: Cluster,
}

impl World {
    /// A server that preloads the extension, with an empty database: what somebody has who only begins.
    pub fn empty() -> World {
        let cluster = Cluster::private(&[]);
        for sql in [SUPABASE, "CREATE DATABASE app"] {
            cluster.connect("postgres").batch_execute(sql).unwrap();
        }
        World { cluster }
    }

    /// The same after the chapters "Install" and "In your application" of the README have been followed, as far as they
    /// create something.
    pub fn installed() -> World {
        let world = World::empty();
        let readme = Page::read("README.md");
        let blocks_of = |heading| {
            let blocks = readme.blocks.iter();
            blocks.filter(move |block| block.language == "sql" && block.heading == heading)
        };
        let install = blocks_of("Install").take(1);
        // The application, and its grants.
        for block in install.chain(blocks_of("In your application").take(2)) {
            for sql in block.text.split(';') {
                world.connect().batch_execute(sql).unwrap();
            }
        }
        world.connect().batch_execute(OWNER).unwrap();
        world.settle();
        world
    }

    pub fn connect(&self) -> Client {
        self.cluster.connect("app")
    }

    /// Returns an environment in which psql connects as a role, without being told more.
    pub fn environment(&self, role: Role) -> Command {
        let psql = self.cluster.program("psql", "app");
        let programs = psql.get_program().to_owned();
        let mut environment = psql;
        let mut path = std::path::Path::new(&programs)
            .parent()
            .expect("a directory")
            .as_os_str()
            .to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").expect("PATH"));
        environment
            .env("PATH", path)
            .env("HOME", self.cluster.socket_directory())
            .env("TERM", "dumb")
            .env("PAGER", "cat")
            .env("PGUSER", role.login());
        if let Some(options) = role.options() {
            environment.env("PGOPTIONS", options);
        }
        environment
    }

    /// Waits until the worker has written all that there is to write, as it has by the time a reader types the next line.
    pub fn settle(&self) {
        let mut client = self.connect();
        let home = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_presence'";
        let Some(row) = client.query_opt(home, &[]).unwrap() else {
            return;
        };
        let sql = format!(
            "SELECT is_complete AND last_tick_at IS NOT NULL AND oldest_unwritten_ms IS NULL FROM {}.presence_stats",
            row.get::<_, &str>(0)
        );
        wait_until("the worker to have written everything", || {
            client.query_one(&sql, &[]).unwrap().get::<_, Option<bool>>(0) == Some(true)
        });
    }
}

/// As whom a block is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// A role that logs in.
    Login(&'static str),
    /// A role for requests of a server such as PostgREST, with the claims of the user's JWT.
    Request(&'static str),
}

/// How a page says as whom a block is run: in its first line, after "-- as ", or in the sentence before it.
const ROLES: [(&str, Role); 5] = [
    ("a superuser", Role::Login("postgres")),
    ("the owner of the database", Role::Login("owner")),
    ("app", Role::Login("app")),
    ("web_user", Role::Login("web_user")),
    ("web_user, with a JWT", Role::Request("web_user")),
];

impl Role {
    /// As whom a block is run; the application's role unless the page says otherwise.
    pub fn of(block: &Block) -> Role {
        let first = block.text.lines().next().unwrap_or_default();
        if let Some(named) = first.strip_prefix("-- as ") {
            let known = ROLES.iter().find(|(name, _)| *name == named);
            return known
                .unwrap_or_else(|| panic!("line {}: no such role: {named}", block.line))
                .1;
        }
        let lead = block.lead.to_lowercase();
        // The first two can be named in a sentence.
        let said = ROLES[..2].iter().find(|(name, _)| lead.contains(&format!("as {name}")));
        said.map_or(Role::Login("app"), |(_, role)| *role)
    }

    fn login(self) -> &'static str {
        match self {
            Role::Login(role) | Role::Request(role) => role,
        }
    }

    fn options(self) -> Option<String> {
        match self {
            Role::Login(_) => None,
            Role::Request(role) => Some(format!(r#"-c request.jwt.claims={{"sub":"{USER}","role":"{role}"}}"#)),
        }
    }
}
