//! The users' status in the roster, compared with what is in the tables.

use std::collections::HashSet;

use uuid::Uuid;

use crate::{
    roster::Tenant,
    rules::status::Reason,
    settings,
    store::{feed::UserUpdate, load},
};

/// Returns an update with the user's status now.
pub fn current(tenant: Tenant, update: UserUpdate) -> UserUpdate {
    let (now, timeout) = (tenant.now(), settings::active_timeout());
    let mut user = tenant.dirty_user(&update.user.user_id, update.user.reason, &now, timeout);
    user.last_seen = user.last_seen.max(update.user.last_seen);
    user.keyed |= update.user.keyed;
    UserUpdate {
        user,
        reason: update.reason,
    }
}

/// While the roster is incomplete, a user it calls inactive may still have a live session in the table: makes such
/// users active.
pub fn check_table(tenant: Tenant, updates: &mut [UserUpdate]) {
    let inactive: Vec<Uuid> = updates
        .iter()
        .filter(|update| !update.user.active)
        .map(|update| update.user.user_id)
        .collect();
    if inactive.is_empty() {
        return;
    }
    tenant.note_standstill();
    let live = load::users_live_only_in_table(
        tenant,
        Some(&inactive),
        &tenant.synchronize_clock(),
        settings::active_timeout(),
    );
    for update in updates {
        if live.contains(&update.user.user_id) {
            update.user.active = true;
            // The reason was one for becoming inactive.
            update.reason = None;
        }
    }
}

/// Compares all users of the tables with the roster, and returns those who differ, with `reason` as the reason if it is
/// known. To be called in a transaction.
pub fn compare_all(tenant: Tenant, reason: Option<Reason>) -> Vec<UserUpdate> {
    tenant.note_standstill();
    let (now, timeout) = (tenant.synchronize_clock(), settings::active_timeout());
    // First what was written, then the roster: users who change in between are in the roster's queue.
    let mut written_online = load::online_users();
    let mut active = tenant.active_users(&now, timeout);
    if !tenant.is_complete() {
        let known: HashSet<Uuid> = active.iter().map(|user| user.user_id).collect();
        let in_table = load::users_live_only_in_table(tenant, None, &now, timeout);
        for id in in_table.into_iter().filter(|id| !known.contains(id)) {
            let mut user = tenant.dirty_user(&id, Reason::Started, &now, timeout);
            user.active = true;
            active.push(user);
        }
    }
    let mut updates = Vec::new();
    for user in active {
        if written_online.remove(&user.user_id) != Some(true) {
            updates.push(UserUpdate { user, reason });
        }
    }
    for id in written_online.into_keys() {
        let user = tenant.dirty_user(&id, Reason::Deleted, &now, timeout);
        updates.push(UserUpdate { user, reason });
    }
    updates
}
