//! Users and their statuses.

use std::fmt;

use serde::Deserialize;
use tokio_postgres::Row;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    Active,
    /// Online, and nobody has been there for a while.
    Idle,
    Busy,
    Inactive,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Status::Active => "active",
            Status::Idle => "idle",
            Status::Busy => "busy",
            Status::Inactive => "inactive",
        })
    }
}

/// A user as of the last change of the status; the fields are the columns of `user_presence`.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    pub user_id: String,
    /// The user's own ID, where that is not a UUID.
    #[serde(rename = "key")]
    pub user_key: Option<String>,
    pub status: Status,
    /// When the status changed, in UTC, as ISO 8601.
    #[serde(rename = "at")]
    pub changed_at: String,
    pub last_seen: Option<String>,
    /// The number of the change in the change feed.
    pub seq: i64,
}

/// The columns that [`User::of`] reads.
pub(crate) const COLUMNS: &str = r#"user_id::text, user_key, status::text,
    to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    to_char(last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), seq"#;

impl User {
    pub fn is_online(&self) -> bool {
        self.status != Status::Inactive
    }

    /// Returns the user in a row; none if the user has been forgotten.
    pub(crate) fn of(row: &Row) -> Option<User> {
        Some(User {
            user_id: row.get::<_, Option<String>>(0)?,
            user_key: row.get(1),
            status: match row.get(2) {
                "active" => Status::Active,
                "idle" => Status::Idle,
                "busy" => Status::Busy,
                _ => Status::Inactive,
            },
            changed_at: row.get(3),
            last_seen: row.get(4),
            seq: row.get(5),
        })
    }
}
