//! What a reader of the feed has seen, which no crash may take back.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Crew;
use crate::{Database, wait_until};

/// How many of the changes seen last are looked at again: whether they are still there, and still the same.
const AGAIN: i64 = 1000;

/// The changes read so far.
pub struct Feed {
    epoch: String,
    seq: i64,
    /// The last ones.
    changes: BTreeMap<i64, (Uuid, bool)>,
    /// What the last change of each user said.
    active: HashMap<Uuid, bool>,
    last_seen: HashMap<Uuid, DateTime<Utc>>,
}

impl Feed {
    pub fn begin(database: &Database) -> Feed {
        let (epoch, seq) = database.cursor();
        Feed {
            epoch,
            seq,
            changes: BTreeMap::new(),
            active: HashMap::new(),
            last_seen: HashMap::new(),
        }
    }

    /// How many changes there have been.
    pub fn seen(&self) -> i64 {
        self.seq
    }

    /// Reads what is new, and asserts that it goes on from what was there before.
    pub fn read(&mut self, database: &Database, crew: &Crew) {
        let mut client = database.connect();
        assert_eq!(database.cursor().0, self.epoch, "the epoch has changed");
        let sql = "SELECT seq, user_id, status = 'active', last_seen, changed_at
                   FROM presence.presence_changes WHERE seq > $1 ORDER BY seq";
        let rows = client.query(sql, &[&(self.seq - AGAIN)]);
        let mut next = None;
        for row in rows.expect("the feed") {
            let (seq, user, active): (i64, Uuid, bool) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(seq, *next.get_or_insert(seq), "a gap or a repeat");
            next = Some(seq + 1);
            if seq <= self.seq {
                let before = self.changes.get(&seq);
                assert!(
                    before.is_none_or(|before| *before == (user, active)),
                    "change {seq} was another"
                );
                continue;
            }
            assert_eq!(seq, self.seq + 1, "a gap");
            self.seq = seq;
            self.changes.insert(seq, (user, active));
            assert_ne!(
                self.active.insert(user, active).unwrap_or(false),
                active,
                "change {seq} is none"
            );
            assert!(
                active || crew.excuses(user, row.get(3), row.get(4)),
                "{user} kept beating and was reported inactive by change {seq}"
            );
        }
        let next = next.unwrap_or(self.seq + 1);
        assert_eq!(next, self.seq + 1, "changes have gone");
        self.changes = self.changes.split_off(&(next - AGAIN));
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

    /// Has everybody hold still, and waits until the feed says of every user what the clients know: that each
    /// acknowledged login and logout that still stands is in it.
    pub fn settle(&mut self, database: &Database, crew: &Crew) {
        let known = crew.hold_still();
        wait_until("the feed to say what the clients know", || {
            self.read(database, crew);
            known
                .iter()
                .all(|(user, live)| self.active.get(user).copied().unwrap_or(false) == *live)
        });
        crew.go_on();
    }
}
