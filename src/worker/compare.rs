//! What is shown of users, by the roster and what is declared, compared with what is in the tables.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{
    roster::{DirtyUser, Now, Tenant},
    rules::{
        declared::shown,
        hiding::Visible,
        status::{Reason, Status},
        time::Micros,
    },
    settings,
    store::{
        declared,
        feed::UserUpdate,
        load::{self, WrittenUser},
        visibility,
    },
};

/// Returns an update with the user's status at `now`. The reason of another status is none of this one.
pub fn current(tenant: Tenant, update: UserUpdate, now: &Now) -> UserUpdate {
    let timeout = settings::active_timeout();
    let timed_out = tenant.time_out_due(&update.user.user_id, timeout, now);
    let user = tenant.dirty_user(&update.user.user_id, update.user.reason, now, timeout);
    let reason = timed_out
        .or(update.reason)
        .filter(|reason| reason.leads_to(user.status));
    let mut current = UserUpdate { user, reason };
    current.merge(&update);
    current
}

/// While the roster is incomplete, a user it calls inactive or idle may still have a live session in the table, one that
/// is not idle: gives such users the status that this makes.
pub fn check_table(tenant: Tenant, updates: &mut [UserUpdate]) {
    let live = more_active_by_now(tenant, updates, |_| true);
    for update in updates {
        if let Some(idle_since) = live.get(&update.user.user_id) {
            if !update.user.status.is_online() {
                // The reason was one for becoming inactive.
                update.reason = None;
            }
            add_session(&mut update.user, *idle_since);
        }
    }
}

/// Removes the users from `updates` who are less active by the roster than by a commit that is still to be applied to it, and
/// returns them. Others may see that commit, and it may have been written as their status while the roster was incomplete.
pub fn split_off_unapplied(tenant: Tenant, updates: &mut Vec<UserUpdate>) -> Vec<UserUpdate> {
    let live = more_active_by_now(tenant, updates, |user| user.is_being_written);
    updates
        .extract_if(.., |update| live.contains_key(&update.user.user_id))
        .collect()
}

/// Returns those of the selected users who are not active by these updates, but have a live session that only the table knows,
/// or that the roster knows by now, and since when they are idle by that.
fn more_active_by_now(
    tenant: Tenant,
    updates: &[UserUpdate],
    is_selected: impl Fn(&DirtyUser) -> bool,
) -> HashMap<Uuid, Option<Micros>> {
    let users = updates.iter().map(|update| &update.user);
    let users: Vec<&DirtyUser> = users
        .filter(|user| user.status != Status::Active && is_selected(user))
        .collect();
    if users.is_empty() {
        return HashMap::new();
    }
    let ids: Vec<Uuid> = users.iter().map(|user| user.user_id).collect();
    tenant.note_standstill();
    let (now, timeout) = (tenant.synchronize_clock(), settings::active_timeout());
    let mut more_active = load::users_live_only_in_table(tenant, Some(&ids), &now, timeout);
    // The roster may have learned of a session since the updates were made: that is not in the table alone any more.
    for user in users {
        let by_now = tenant.dirty_user(&user.user_id, user.reason, &now, timeout);
        if by_now.status == Status::Active || by_now.status == Status::Idle && !user.status.is_online() {
            let idle_since = more_active.entry(user.user_id).or_insert(by_now.idle_since);
            *idle_since = idle_since.zip(by_now.idle_since).map(|(there, here)| there.max(here));
        }
    }
    more_active
}

/// Makes a user what one more live session makes of it, which is idle since then, or active.
fn add_session(user: &mut DirtyUser, idle_since: Option<Micros>) {
    (user.status, user.idle_since) = match (user.status, idle_since) {
        (Status::Active, _) | (_, None) => (Status::Active, None),
        (_, Some(_)) => (Status::Idle, user.idle_since.max(idle_since)),
    };
}

/// What a comparison of all users has found.
pub struct Comparison {
    /// Users of whom something else was written than what is shown.
    pub updates: Vec<UserUpdate>,
    /// When something that is declared expires next.
    pub next_expiry: Option<Micros>,
    /// Whether what is declared was not compared, as others have locked the table.
    pub is_behind: bool,
}

/// Returns the reason of a user's status: that of the comparison, or the one for which the user is queued meanwhile, if it is
/// one for this status.
fn reason_of(tenant: Tenant, user: &DirtyUser, reason: Option<Reason>) -> Option<Reason> {
    let fits = |reason: &Reason| reason.leads_to(user.status) && (user.status.is_online() || !reason.is_while_online());
    reason.or_else(|| tenant.unwritten_reason(&user.user_id).filter(fits))
}

/// Compares all users of the tables with the roster and with what is declared of them. `reason` is the reason of those who
/// differ, if it is known. Where others have locked what is declared, only who comes and goes differs. To be called in a
/// transaction.
pub fn compare_all(tenant: Tenant, reason: Option<Reason>) -> Comparison {
    tenant.note_standstill();
    let (now, timeout) = (tenant.synchronize_clock(), settings::active_timeout());
    // First what was written, then the rest: users who change in between are in the roster's queue.
    let mut written = load::shown_users();
    let (may_have_declared, may_have_hidden) = (tenant.may_have_declared(), tenant.may_have_hidden());
    let is_behind = may_have_declared && !declared::try_lock();
    let (mut declared, next_expiry) = match may_have_declared && !is_behind {
        true => (declared::of_known(now.wall()), declared::next_expiry(now.wall())),
        false => (HashMap::new(), None),
    };
    // The roster has left out who is hidden, where it knows.
    let may_be_hidden = may_have_hidden && !tenant.knows_hidden();
    let read_visible = || -> HashMap<Uuid, Visible> {
        let hidings = match may_be_hidden && !is_behind {
            true => visibility::all(),
            false => HashMap::new(),
        };
        let visible = hidings
            .into_iter()
            .map(|(user, hiding)| (user, hiding.visible(now.wall())));
        visible.collect()
    };
    let visible = read_visible();
    let mut online = tenant.counted_online(&now, timeout);
    if !tenant.is_complete() {
        let mut in_table = load::users_live_only_in_table(tenant, None, &now, timeout);
        for user in &mut online {
            if let Some(idle_since) = in_table.remove(&user.user_id) {
                add_session(user, idle_since);
            }
        }
        for (id, idle_since) in in_table {
            let mut user = tenant.dirty_user(&id, Reason::Started, &now, timeout);
            add_session(&mut user, idle_since);
            online.push(user);
        }
    }
    let visible = visibility::throughout(visible, &read_visible());
    let mut updates = Vec::new();
    let idle_timeout = settings::idle_timeout();
    let mut shown_now = |id: &Uuid, by_sessions: Status, idle_since: Option<Micros>| {
        let visible = visible.get(id).copied().unwrap_or(Visible::ALL);
        let by_sessions = visible.status(by_sessions, idle_since, now.wall(), idle_timeout);
        WrittenUser {
            shown: shown(by_sessions, declared.remove(id).unwrap_or_default()),
            is_idle: by_sessions == Status::Idle,
        }
    };
    // Who is not written as online may be hidden, as long as nobody can tell.
    let differs = |was: Option<WrittenUser>, is: WrittenUser| match is_behind {
        true => {
            let was_online = was.is_some_and(|was| was.shown.status.is_online());
            let is_online = is.shown.status.is_online();
            was_online != is_online && (was_online || !may_be_hidden)
        }
        false => was != Some(is),
    };
    for user in online {
        let is = shown_now(&user.user_id, user.status, user.idle_since);
        let was = written.remove(&user.user_id);
        // Who is hidden, and whom nothing shows of, is written as nothing.
        let shows = is.shown.status.is_online() || is.shown.has_details() || is.shown.expires_at.is_some();
        if (shows || was.is_some()) && differs(was.flatten(), is) {
            let reason = reason_of(tenant, &user, reason);
            updates.push(UserUpdate { user, reason });
        }
    }
    // The rest is offline.
    let mut offline = |id: Uuid| {
        let user = tenant.dirty_user(&id, Reason::Deleted, &now, timeout);
        let reason = reason_of(tenant, &user, reason);
        updates.push(UserUpdate { user, reason });
    };
    for (id, was) in written {
        if differs(was, shown_now(&id, Status::Inactive, None)) {
            offline(id);
        }
    }
    for (id, declared) in declared {
        let is = shown(Status::Inactive, declared);
        if is.has_details() || is.expires_at.is_some() {
            offline(id);
        }
    }
    Comparison {
        updates,
        next_expiry,
        is_behind,
    }
}
