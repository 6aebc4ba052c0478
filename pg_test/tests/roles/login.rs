//! Roles that are logged in, and the sessions they are asked about.

use pg_presence_test::{Database, Presence, Session};
use postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

/// One role, logged in.
pub struct Login {
    pub role: String,
    /// Its column in the tables above.
    pub column: usize,
    pub has_identity: bool,
    pub client: Client,
}

impl Login {
    /// The letter for this role.
    pub fn scope(&self, who: &str) -> char {
        char::from(who.as_bytes()[self.column])
    }

    /// Acts for this user from now on, where the role has an identity.
    pub fn turn_to(&mut self, user: Uuid) {
        if self.has_identity {
            self.client.act_for(user);
        }
    }

    /// The one value or the number of rows that a statement answers, or its error's code after a `!`. Nothing of it
    /// lasts, but for heartbeats. Where transactions are serializable, one that crosses the worker's is tried again, as
    /// PostgreSQL asks of everybody.
    pub fn ask(&mut self, sql: &str, wants_value: bool) -> String {
        for _ in 0..100 {
            let answer = self.ask_once(sql, wants_value);
            if answer != "!40001" || !self.is_serializable() {
                return answer;
            }
        }
        panic!("{sql} is never serialized")
    }

    fn is_serializable(&mut self) -> bool {
        let row = self.client.query_one("SHOW transaction_isolation", &[]);
        row.expect("the isolation level").get::<_, &str>(0) == "serializable"
    }

    fn ask_once(&mut self, sql: &str, wants_value: bool) -> String {
        let mut transaction = self.client.transaction().expect("a transaction");
        let messages = match transaction.simple_query(sql) {
            Ok(messages) => messages,
            Err(error) => return format!("!{}", error.code().expect("the server's answer").code()),
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
        value.unwrap_or_else(|| panic!("no answer to {sql}"))
    }
}

/// Every role of the contract, on connections of their own.
pub fn logins(database: &Database) -> Vec<Login> {
    let bypass = database.client();
    let monitor = database.role("monitor");
    database.run(&format!(
        "ALTER ROLE {bypass} BYPASSRLS; GRANT pg_monitor TO {monitor}"
    ));
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
            client
                .batch_execute("SET search_path = presence, pg_temp")
                .unwrap();
            Login {
                role,
                column,
                has_identity,
                client,
            }
        })
        .collect()
}

/// A session of a new user, with what a function could be asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row {
    Live,
    Silent,
    Ended,
    /// There is none.
    Unknown,
}

pub const ROWS: [Row; 4] = [Row::Live, Row::Silent, Row::Ended, Row::Unknown];

impl Row {
    pub fn make(self, service: &mut Client, user: Uuid) -> Session {
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

/// A statement with a session filled in.
pub fn fill(text: &str, session: &Session, user: Uuid) -> String {
    text.replace("{id}", &session.id.to_string())
        .replace("{token}", &session.token)
        .replace("{user}", &user.to_string())
}

/// All of a row that is data, and not only liveness.
pub fn data(service: &mut Client, session: &Session) -> Option<String> {
    let sql =
        "SELECT row(id, user_id, auth_id, session_token, ended_at, expires_at, metadata)::text
                 FROM presence.user_sessions WHERE id = $1";
    let row = service.query_opt(sql, &[&session.id]).unwrap();
    row.map(|row| row.get(0))
}
