//! What is known, and up to where in the change feed; without a connection.

use std::collections::HashMap;

use serde::Deserialize;

use crate::user::User;

#[derive(Default)]
pub struct Feed {
    /// The epoch that `seq` belongs to; `None` before the first snapshot.
    pub epoch: Option<String>,
    /// The sequence number up to which the feed has been followed.
    pub seq: i64,
    /// As of each user's last change.
    pub users: HashMap<String, User>,
}

#[derive(Deserialize)]
struct Message {
    epoch: String,
    prev: i64,
    seq: i64,
    changes: Option<Vec<User>>,
}

impl Feed {
    /// Applies a notification; returns what is new in it. Returns `None` if the feed has to be read instead: changes are
    /// missing before it or in it, or it is not one of pg_presence's, as anybody who can connect can NOTIFY.
    pub fn apply(&mut self, payload: &str) -> Option<Vec<User>> {
        let message: Message = serde_json::from_str(payload).ok()?;
        let changes = message.changes?;
        let is_next = self.epoch.as_ref() == Some(&message.epoch) && message.prev <= self.seq;
        if !is_next || changes.iter().any(|change| change.seq > message.seq) {
            return None;
        }
        let changes = self.update(changes);
        self.seq = self.seq.max(message.seq);
        Some(changes)
    }

    /// Takes in the changes that are newer than what is known of their users, and returns these.
    pub fn update(&mut self, mut changes: Vec<User>) -> Vec<User> {
        changes.retain(|change| {
            let known = self.users.get(&change.user_id);
            let is_newer = known.is_none_or(|known| change.seq > known.seq);
            if is_newer {
                self.users.insert(change.user_id.clone(), change.clone());
            }
            is_newer
        });
        changes
    }

    /// Takes in everybody, as of a position or later.
    pub fn replace(&mut self, epoch: String, seq: i64, users: &[User]) {
        self.users = users.iter().map(|user| (user.user_id.clone(), user.clone())).collect();
        self.seq = seq;
        self.epoch = Some(epoch);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::user::Status;

    const AT: &str = "2026-11-23T15:00:00.123456Z";

    fn change(seq: i64, user_id: &str, status: &str) -> Value {
        json!({ "seq": seq, "user_id": user_id, "status": status, "at": AT, "last_seen": AT })
    }

    fn message(epoch: &str, prev: i64, seq: i64, changes: &[Value]) -> String {
        json!({ "v": 1, "epoch": epoch, "prev": prev, "seq": seq, "changes": changes }).to_string()
    }

    /// A feed that has been read up to number 10.
    fn feed(users: &[Value]) -> Feed {
        let users: Vec<User> = users
            .iter()
            .map(|user| serde_json::from_value(user.clone()).unwrap())
            .collect();
        let mut feed = Feed::default();
        feed.replace("e1".to_owned(), 10, &users);
        feed
    }

    fn statuses(changes: Option<Vec<User>>) -> Option<Vec<(String, Status)>> {
        let of = |user: User| (user.user_id, user.status);
        changes.map(|changes| changes.into_iter().map(of).collect())
    }

    #[test]
    fn a_notification_is_applied_once() {
        let mut feed = feed(&[change(10, "ana", "active")]);
        let message = message(
            "e1",
            10,
            12,
            &[change(11, "ben", "active"), change(12, "ana", "inactive")],
        );
        let told = vec![("ben".to_owned(), Status::Active), ("ana".to_owned(), Status::Inactive)];
        assert_eq!(statuses(feed.apply(&message)), Some(told));
        assert_eq!(statuses(feed.apply(&message)), Some(vec![]));
        assert_eq!(feed.seq, 12);
    }

    #[test]
    fn who_is_idle_is_online() {
        let mut feed = feed(&[change(10, "ana", "active")]);
        let told = feed.apply(&message("e1", 10, 11, &[change(11, "ana", "idle")]));
        assert_eq!(statuses(told), Some(vec![("ana".to_owned(), Status::Idle)]));
        assert!(feed.users["ana"].is_online());
    }

    #[test]
    fn a_change_that_everybody_was_read_with_is_not_told_again() {
        let mut feed = feed(&[change(11, "ana", "active")]);
        let message = message("e1", 10, 11, &[change(11, "ana", "active")]);
        assert_eq!(statuses(feed.apply(&message)), Some(vec![]));
        assert_eq!(feed.seq, 11);
    }

    #[test]
    fn what_is_missing_before_a_notification_has_to_be_read() {
        let mut feed = feed(&[]);
        assert!(
            feed.apply(&message("e1", 11, 12, &[change(12, "ana", "active")]))
                .is_none()
        );
        assert!(
            feed.apply(&message("e2", 10, 11, &[change(11, "ana", "active")]))
                .is_none()
        );
        assert!(feed.apply(r#"{"v":1,"epoch":"e1","prev":10,"seq":9043}"#).is_none());
        assert_eq!((feed.seq, feed.users.len()), (10, 0));
    }

    #[test]
    fn everybody_in_a_new_epoch_replaces_who_was_known() {
        let mut feed = feed(&[change(9, "ben", "active"), change(10, "ana", "active")]);
        let ana: User = serde_json::from_value(change(1, "ana", "inactive")).unwrap();
        feed.replace("e2".to_owned(), 3, &[ana]);
        let known: Vec<_> = feed.users.values().map(|user| (user.seq, user.status)).collect();
        assert_eq!(known, [(1, Status::Inactive)]);
        let before = message("e1", 10, 11, &[change(11, "ana", "active")]);
        assert!(feed.apply(&before).is_none());
        let after = message("e2", 3, 4, &[change(4, "ana", "active")]);
        assert_eq!(
            statuses(feed.apply(&after)),
            Some(vec![("ana".to_owned(), Status::Active)])
        );
    }

    #[test]
    fn payloads_of_anybody_are_only_hints_to_read() {
        let mut feed = feed(&[]);
        let far = message("e1", 10, 11, &[change(12, "ana", "active")]);
        let away = message("e1", 10, 11, &[change(11, "ana", "away")]);
        let nobody = message("e1", 10, 11, &[json!({ "seq": 11, "status": "active", "at": AT })]);
        let deep = "[".repeat(7000);
        let huge = r#"{"epoch":"e1","prev":10,"seq":9223372036854775808,"changes":[]}"#;
        for payload in ["", "null", "{}", &far, &away, &nobody, &deep, huge] {
            assert!(feed.apply(payload).is_none(), "{payload}");
        }
        assert_eq!((feed.seq, feed.users.len()), (10, 0));
    }
}
