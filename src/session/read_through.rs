//! Reads a session that the roster does not know from the table, into the roster where that has room.

use crate::{
    pg::{compat, errors},
    roster::{Key, Owner, Reservation, RowImage, Tenant},
    rules::time::Micros,
    settings,
    store::session,
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
/// instead. Errors: 25006 on a standby.
pub fn read_through(tenant: Tenant, key: &Key, owner: &Owner) -> ReadThrough {
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
    // Reserve the slot, then read the row again: an end that commits in between finds the slot and marks it.
    let Ok((reservation, stamp)) = tenant.pin(&row) else {
        tenant.set_overflow();
        return match session::write_beat(&row.id) {
            true => ReadThrough::BeatWritten,
            false => ReadThrough::Ended,
        };
    };
    let guard = ReservationGuard {
        tenant,
        reservation: Some(reservation),
    };
    let row = session::find(key, owner).filter(|row| !session::has_ended(row, compat::now()));
    guard.fill(row.as_ref(), stamp, settings::active_timeout());
    match row {
        Some(_) => ReadThrough::Filled,
        None => ReadThrough::Ended,
    }
}

/// A reservation that is cancelled on drop, so also when the second read raises an error.
struct ReservationGuard {
    tenant: Tenant,
    reservation: Option<Reservation>,
}

impl ReservationGuard {
    /// Fills the reserved slot from the row, if there still is one, and releases the reservation.
    fn fill(mut self, row: Option<&RowImage>, stamp: u64, timeout: Micros) {
        if let Some(reservation) = self.reservation.take() {
            self.tenant.fill(reservation, row, stamp, timeout);
        }
    }
}

impl Drop for ReservationGuard {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.tenant.cancel_reservation(reservation);
        }
    }
}
