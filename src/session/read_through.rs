//! Reads a session that the roster does not know from the table, into the roster where that has room.

use crate::{
    pg::{compat, errors, fault_point},
    roster::{Key, Owner, Tenant},
    settings,
    store::{load, session},
    triggers::{held, pending},
};

/// The outcome of reading a session from the table.
pub enum ReadThrough {
    /// The session is in the roster now.
    Filled,
    /// The roster has no room for the session, so the beat was written to the table.
    BeatWritten,
    /// The session has ended.
    Ended,
    /// The table has no such session of this owner.
    Unknown,
}

/// Reads a session that the roster does not know. Where the roster has no room for it, writes a beat to the table
/// instead. `attended`: a beat follows that says that somebody is at it. Otherwise its user stays idle who was idle when
/// the server stopped. Errors: 25006 on a standby.
pub fn read_through(tenant: Tenant, key: &Key, owner: &Owner, attended: bool) -> ReadThrough {
    if compat::in_recovery() {
        errors::on_standby();
    }
    tenant.count_slow_path();
    let Some(row) = session::find(key, owner) else {
        tenant.count_rejected();
        return ReadThrough::Unknown;
    };
    if session::has_ended(&row, compat::now()) {
        tenant.count_rejected();
        return ReadThrough::Ended;
    }
    // The row may be this transaction's own, which is not to get into the roster before the commit.
    let pinned = match pending::has_overflowed() {
        true => None,
        false => tenant.pin(&row).ok(),
    };
    // Reserve the slot, then read the row again: an end that commits in between finds the slot and marks it.
    let Some((reservation, stamp)) = pinned else {
        tenant.set_overflow();
        return match session::write_beat(&row.id) {
            true => ReadThrough::BeatWritten,
            false => ReadThrough::Ended,
        };
    };
    held::hold(tenant, reservation);
    pending::resolve(tenant, &reservation, &row.user_id);
    fault_point::delay("read");
    let mut row = session::find(key, owner).filter(|row| !session::has_ended(row, compat::now()));
    if !attended
        && tenant.keeps_idle()
        && let Some(row) = &mut row
    {
        row.idle_since = load::idle_users(Some(&[row.user_id])).remove(&row.user_id);
    }
    if let Some((tenant, reservation)) = held::take() {
        tenant.fill(reservation, row.as_ref(), stamp, settings::active_timeout());
    }
    match row {
        Some(_) => ReadThrough::Filled,
        None => ReadThrough::Ended,
    }
}
