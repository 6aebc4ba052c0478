//! Roles that are logged in, and the sessions that they call functions about.

use pg_presence_test::{Database, Presence, Session};
use postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

/// One role, logged in.
pub struct Login {
    pub role: String,
    /// Its column in the tables of [`contract`](crate::contract).
    pub column: usize,
    pub has_identity: bool,
    pub client: Client,
}

impl Login {
    /// Returns the letter for this role.
    pub fn scope(&self, who: &str) -> char {
        char::from(who.as_bytes()[self.column])
    }

    /// Acts for this user from now on, where the role has an identity.
    pub fn act_for(&mut self, user: Uuid) {
        if self.has_identity {
            self.client.act_for(user);
        }
    }

    /// Returns the value of a statement or its number of rows, or `!` and its SQLSTATE. The statement is rolled back, which
    /// undoes everything but heartbeats. A serializable transaction that conflicts with the worker's is retried, as
    /// PostgreSQL requires.
    pub fn run(&mut self, sql: &str, wants_value: bool) -> String {
        for _ in 0..100 {
            let answer = self.run_once(sql, wants_value);
            if answer != "!40001" || !self.is_serializable() {
                return answer;
            }
        }
        panic!("{sql} always fails to serialize")
    }

    fn is_serializable(&mut self) -> bool {
        let row = self.client.query_one("SHOW transaction_isolation", &[]);
        row.expect("the isolation level").get::<_, &str>(0) == "serializable"
    }

    fn run_once(&mut self, sql: &str, wants_value: bool) -> String {
        let mut transaction = self.client.transaction().expect("a transaction");
        let messages = match transaction.simple_query(sql) {
            Ok(messages) => messages,
            Err(error) => return format!("!{}", error.code().expect("an error of the server").code()),
        };
        let mut value = None;
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) if wants_value => {
                    value = Some(row.get(0).unwrap_or("NULL").to_owned());
                }
                SimpleQueryMessage::CommandComplete(rows) if !wants_value => {
                    value = Some(rows.to_string());
                }
                _ => {}
            }
        }
        value.unwrap_or_else(|| panic!("no result of {sql}"))
    }
}

/// Logs in as every role of the contract.
pub fn logins(database: &Database) -> Vec<Login> {
    let bypass = database.client();
    let monitor = database.role("monitor");
    database.run(&format!("ALTER ROLE {bypass} BYPASSRLS; GRANT pg_monitor TO {monitor}"));
    let client = database.client();
    let roles = [
        (database.role("nobody"), 0, true),
        (database.holder(), 1, true),
        (client.clone(), 2, true),
        (client, 2, false),
        (database.reader(), 3, true),
        (database.service(), 4, true),
        (bypass, 5, true),
        (monitor, 6, true),
    ];
    roles
        .into_iter()
        .map(|(role, column, has_identity)| {
            let mut client = database.connect_as(&role);
            client.batch_execute("SET search_path = presence, pg_temp").unwrap();
            Login {
                role,
                column,
                has_identity,
                client,
            }
        })
        .collect()
}

/// The state of a session that a function is called about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row {
    Live,
    Silent,
    Ended,
    /// There is no such session.
    Unknown,
}

pub const ROWS: [Row; 4] = [Row::Live, Row::Silent, Row::Ended, Row::Unknown];

impl Row {
    /// Inserts a session in this state for a user, and returns its id and token.
    pub fn insert(self, service: &mut Client, user: Uuid) -> Session {
        let token = format!("the token of {}", Uuid::new_v4());
        let values = match self {
            Row::Unknown => {
                return Session {
                    id: Uuid::new_v4(),
                    token,
                };
            }
            Row::Live => "true, now(), NULL",
            Row::Silent => "false, now() - interval '1 hour', NULL",
            Row::Ended => "false, now() - interval '1 hour', now()",
        };
        let sql = format!(
            "INSERT INTO presence.user_sessions (user_id, session_token, is_active, last_activity, ended_at)
             SELECT $1, $2, {values} RETURNING id"
        );
        let id = service.query_one(&sql, &[&user, &token]).unwrap().get(0);
        Session { id, token }
    }
}

/// Fills a session and its user into a statement.
pub fn fill(text: &str, session: &Session, user: Uuid) -> String {
    text.replace("{id}", &session.id.to_string())
        .replace("{token}", &session.token)
        .replace("{user}", &user.to_string())
}

/// Returns everything of a row but its activity.
pub fn data(service: &mut Client, session: &Session) -> Option<String> {
    let sql = "SELECT row(id, user_id, auth_id, session_token, ended_at, expires_at, metadata)::text
                 FROM presence.user_sessions WHERE id = $1";
    let row = service.query_opt(sql, &[&session.id]).unwrap();
    row.map(|row| row.get(0))
}
