//! What a reader of the feed has seen, which no crash may take back.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Crew;
use crate::Database;

/// Every change read so far.
pub struct Feed {
    epoch: String,
    changes: BTreeMap<i64, (Uuid, bool)>,
    last_seen: BTreeMap<Uuid, DateTime<Utc>>,
}

impl Feed {
    pub fn begin(database: &Database) -> Feed {
        Feed {
            epoch: database.cursor().0,
            changes: BTreeMap::new(),
            last_seen: BTreeMap::new(),
        }
    }

    /// How many changes it has seen.
    pub fn seen(&self) -> usize {
        self.changes.len()
    }

    /// Reads all there is, and asserts that it goes on from what was there before.
    pub fn read(&mut self, database: &Database, crew: &Crew) {
        let mut client = database.connect();
        assert_eq!(database.cursor().0, self.epoch, "the epoch has changed");
        let sql =
            "SELECT seq, user_id, status = 'active' FROM presence.presence_changes ORDER BY seq";
        let mut next = 1;
        let mut now: BTreeMap<Uuid, bool> = BTreeMap::new();
        for row in client.query(sql, &[]).expect("the feed") {
            let (seq, user, active): (i64, Uuid, bool) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(seq, next, "a gap or a repeat");
            next += 1;
            let before = self.changes.insert(seq, (user, active));
            assert!(
                before.is_none_or(|before| before == (user, active)),
                "change {seq} was another"
            );
            assert_ne!(
                now.insert(user, active).unwrap_or(false),
                active,
                "change {seq} is none"
            );
            assert!(
                active || !crew.keeps_beating(&user),
                "{user} kept beating and was reported inactive by change {seq}"
            );
        }
        assert_eq!(self.changes.len() as i64, next - 1, "changes have gone");
        let sql =
            "SELECT user_id, last_seen FROM presence.user_presence WHERE last_seen IS NOT NULL";
        for row in client.query(sql, &[]).expect("the users") {
            let (user, seen): (Uuid, DateTime<Utc>) = (row.get(0), row.get(1));
            let before = self.last_seen.insert(user, seen);
            assert!(
                before.is_none_or(|before| before <= seen),
                "{user} was last seen at {before:?}, and now at {seen}"
            );
        }
    }
}
