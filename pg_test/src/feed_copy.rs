//! The client that the documentation describes: it keeps a copy of everybody's status from a snapshot, notifications and
//! the feed, and misses nothing.

use std::collections::BTreeMap;

use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

use crate::listener::Listener;
use crate::wait::wait_until;

/// A copy of `user_presence`, kept up to date by notifications.
pub struct FeedCopy {
    listener: Listener,
    reader: Client,
    epoch: String,
    seq: i64,
    users: BTreeMap<Uuid, (i64, String)>,
    /// How many snapshots it has taken.
    pub snapshots: u32,
}

impl FeedCopy {
    /// Listens on one connection and reads on the other. The order matters: LISTEN, cursor, table.
    pub fn new(listener: Listener, reader: Client) -> FeedCopy {
        let mut copy = FeedCopy {
            listener,
            reader,
            epoch: String::new(),
            seq: 0,
            users: BTreeMap::new(),
            snapshots: 0,
        };
        copy.take_snapshot();
        copy
    }

    fn take_snapshot(&mut self) {
        let cursor = self
            .reader
            .query_one("SELECT epoch, seq FROM presence.presence_cursor()", &[])
            .expect("a cursor");
        (self.epoch, self.seq) = (cursor.get(0), cursor.get(1));
        let rows = self
            .reader
            .query("SELECT user_id, seq, status::text FROM presence.user_presence", &[]);
        self.users = rows
            .expect("a snapshot")
            .iter()
            .map(|row| (row.get(0), (row.get(1), row.get(2))))
            .collect();
        self.snapshots += 1;
    }

    fn apply(&mut self, seq: i64, user: Uuid, status: String) {
        let known = self.users.entry(user).or_insert((0, String::new()));
        if seq > known.0 {
            *known = (seq, status);
        }
        self.seq = self.seq.max(seq);
    }

    /// Applies the notifications that have arrived.
    pub fn receive(&mut self) {
        self.listener.receive();
        for message in self.listener.messages.split_off(0) {
            match message.changes {
                Some(changes) if message.epoch == self.epoch && message.prev <= self.seq => {
                    for change in changes {
                        self.apply(change.seq, change.user_id, change.status);
                    }
                }
                _ => self.catch_up(),
            }
        }
    }

    /// Reads the feed from where it is, as clients do after a gap, after a reconnect and every 30 seconds.
    pub fn catch_up(&mut self) {
        loop {
            let sql = "SELECT seq, user_id, status::text FROM presence.changes_since($1, $2)";
            match self.reader.query(sql, &[&self.seq, &self.epoch]) {
                Ok(rows) if rows.is_empty() => return,
                Ok(rows) => {
                    for row in rows {
                        let seq = row.get(0);
                        // The changes of a forgotten user have no user_id.
                        match row.get::<_, Option<Uuid>>(1) {
                            Some(user) => self.apply(seq, user, row.get(2)),
                            None => self.seq = self.seq.max(seq),
                        }
                    }
                }
                Err(error) if error.code() == Some(&SqlState::SNAPSHOT_TOO_OLD) => {
                    return self.take_snapshot();
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// Replaces the connections, as after a restart, and catches up.
    pub fn reconnect(&mut self, listener: Listener, reader: Client) {
        (self.listener, self.reader) = (listener, reader);
        self.catch_up();
    }

    /// Waits until it equals the table, which it does when nothing changes any more. Who came and went between two looks
    /// of the worker has a row in the table and no change: a user whom the copy does not have is inactive.
    pub fn wait_until_equal(&mut self) {
        let sql = "SELECT user_id, status::text FROM presence.user_presence
                   WHERE status <> 'inactive' OR user_id = ANY ($1) ORDER BY 1";
        wait_until("the copy equals the table", || {
            self.receive();
            let users: Vec<Uuid> = self.users.keys().copied().collect();
            let rows = self.reader.query(sql, &[&users]).expect("the table");
            let table: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            self.statuses() == table
        });
    }

    /// Returns the users that are online in the copy.
    pub fn online(&self) -> Vec<Uuid> {
        self.users
            .iter()
            .filter(|(_, (_, status))| status == "active")
            .map(|(user, _)| *user)
            .collect()
    }

    fn statuses(&self) -> Vec<(Uuid, String)> {
        self.users
            .iter()
            .map(|(user, (_, status))| (*user, status.clone()))
            .collect()
    }
}
