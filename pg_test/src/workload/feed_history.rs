//! What a reader of the feed has read, which no crash may take back.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Workload;
use crate::{Database, wait_until};

/// How many of the latest changes are read again, to assert that they are still there and still the same.
const READ_AGAIN: i64 = 1000;

/// The changes read so far.
pub struct FeedHistory {
    /// Every epoch so far, the latest last.
    epochs: Vec<String>,
    seq: i64,
    /// The latest ones.
    changes: BTreeMap<i64, (Uuid, bool)>,
    /// Whether each user is active after their last change.
    active: HashMap<Uuid, bool>,
    last_seen: HashMap<Uuid, DateTime<Utc>>,
}

impl FeedHistory {
    pub fn begin(database: &Database) -> FeedHistory {
        let (epoch, seq) = database.cursor();
        FeedHistory {
            epochs: vec![epoch],
            seq,
            changes: BTreeMap::new(),
            active: HashMap::new(),
            last_seen: HashMap::new(),
        }
    }

    /// How many epochs there have been.
    pub fn epochs(&self) -> usize {
        self.epochs.len()
    }

    /// How many changes there have been.
    pub fn count(&self) -> i64 {
        self.seq
    }

    /// Reads what is new, and asserts that it continues what was read before.
    pub fn read(&mut self, database: &Database, workload: &Workload) {
        let mut client = database.connect();
        let epoch = database.cursor().0;
        if self.epochs.last() != Some(&epoch) {
            assert!(!self.epochs.contains(&epoch), "an epoch that had ended is back");
            self.epochs.push(epoch);
        }
        let sql = "SELECT seq, user_id, status = 'active', last_seen, changed_at
                   FROM presence.presence_changes WHERE seq > $1 ORDER BY seq";
        let rows = client.query(sql, &[&(self.seq - READ_AGAIN)]);
        let mut next = None;
        for row in rows.expect("the feed") {
            let (seq, user, active): (i64, Uuid, bool) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(seq, *next.get_or_insert(seq), "a gap or a repeat");
            next = Some(seq + 1);
            if seq <= self.seq {
                let before = self.changes.get(&seq);
                assert!(
                    before.is_none_or(|before| *before == (user, active)),
                    "change {seq} is not what it was"
                );
                continue;
            }
            assert_eq!(seq, self.seq + 1, "a gap");
            self.seq = seq;
            self.changes.insert(seq, (user, active));
            assert_ne!(
                self.active.insert(user, active).unwrap_or(false),
                active,
                "change {seq} changes nothing"
            );
            assert!(
                active || workload.excuses(user, row.get(3), row.get(4)),
                "{user} kept beating and was reported inactive by change {seq}"
            );
        }
        let next = next.unwrap_or(self.seq + 1);
        assert_eq!(next, self.seq + 1, "changes are missing");
        self.changes = self.changes.split_off(&(next - READ_AGAIN));
        let sql = "SELECT user_id, last_seen FROM presence.user_presence WHERE last_seen IS NOT NULL";
        for row in client.query(sql, &[]).expect("the users") {
            let (user, seen): (Uuid, DateTime<Utc>) = (row.get(0), row.get(1));
            let before = self.last_seen.insert(user, seen);
            assert!(
                before.is_none_or(|before| before <= seen),
                "last_seen of {user} went back from {before:?} to {seen}"
            );
        }
    }

    /// Pauses the workload and waits until the feed has every user as the clients know them: with every acknowledged
    /// login and logout that is still in effect.
    pub fn wait_until_complete(&mut self, database: &Database, workload: &Workload) {
        let expected = workload.pause();
        wait_until("the feed to have what the clients know", || {
            self.read(database, workload);
            expected
                .iter()
                .all(|(user, live)| self.active.get(user).copied().unwrap_or(false) == *live)
        });
        workload.resume();
    }
}
