//! What browsers say: JSON, in text messages.

use std::collections::HashSet;

use serde::Deserialize;
use uuid::Uuid;

/// The first message of a socket: `{"token": "…"}`, or `{"user": "ana"}`, and `"idle": true` if nobody is at the page. It is
/// answered with `{"session": {"user_id": "…", "token": "…"}}`, once the session is bound. The page keeps the token in its
/// `sessionStorage`. It is never part of an address, which servers log, and browsers remember.
#[derive(Deserialize)]
pub struct Hello {
    #[serde(flatten)]
    credentials: Credentials,
    #[serde(default)]
    pub idle: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Credentials {
    /// Of a session that this gateway, or another one, has started.
    Token(String),
    /// The demonstration takes everybody's word for who they are. An application authenticates them here.
    User(String),
}

impl Hello {
    /// Parses a message. What PostgreSQL would refuse is refused here, as one call serves many sockets.
    pub fn parse(text: &str) -> Option<Hello> {
        let hello: Hello = serde_json::from_str(text).ok()?;
        let is_valid = match &hello.credentials {
            Credentials::Token(token) => {
                (22..=512).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
            }
            Credentials::User(key) => (1..=512).contains(&key.len()) && !key.contains('\0'),
        };
        is_valid.then_some(hello)
    }

    /// Returns the application's ID of the user, who starts a session, or none, for one who resumes it; and its token. A new
    /// token is made here rather than in the database, so that a call that got no answer can be repeated.
    pub fn into_credentials(self) -> (Option<String>, String) {
        match self.credentials {
            Credentials::Token(token) => (None, token),
            Credentials::User(key) => {
                let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
                (Some(key), token)
            }
        }
    }
}

/// A later message.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// `"active"`: somebody is at the page, until it says otherwise.
    Active,
    /// `"idle"`: nobody is at the page, until it says otherwise.
    Idle,
    /// `"bye"`: ends the session.
    Bye,
    /// `{"follow": ["…"]}`: tells who of these users is online, and each change from now on; `{"follow": null}`: of all.
    Follow(Option<HashSet<Uuid>>),
}
