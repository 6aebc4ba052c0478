//! Reading a session that the roster does not know from the table, into the roster where it has room.

use crate::{
    pg::{compat, errors},
    roster::{Key, Owner, Reservation, RowImage, Tenant},
    rules::time::Micros,
    settings,
    store::session,
};

/// What came of reading the table for a missing session.
pub enum ReadThrough {
    /// The roster has it now.
    Filled,
    /// The roster has no room; the beat was written to the table instead.
    Beaten,
    Ended,
    Unknown,
}

/// Reads a session that the roster does not know. Errors: 25006 on a standby.
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
    // The slot is pinned first, and the row read again: an end that commits in between finds the slot and marks it.
    let Ok((reservation, stamp)) = tenant.pin(&row) else {
        tenant.set_overflow();
        return match session::write_beat(&row.id) {
            true => ReadThrough::Beaten,
            false => ReadThrough::Ended,
        };
    };
    let pin = Pin {
        tenant,
        reservation: Some(reservation),
    };
    let row = session::find(key, owner).filter(|row| !session::has_ended(row, compat::now()));
    pin.fill(row.as_ref(), stamp, settings::active_timeout());
    match row {
        Some(_) => ReadThrough::Filled,
        None => ReadThrough::Ended,
    }
}

/// A pinned slot, which is unpinned also when the second read raises an error.
struct Pin {
    tenant: Tenant,
    reservation: Option<Reservation>,
}

impl Pin {
    fn fill(mut self, row: Option<&RowImage>, stamp: u64, timeout: Micros) {
        if let Some(reservation) = self.reservation.take() {
            self.tenant.fill(reservation, row, stamp, timeout);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.tenant.cancel_reservation(reservation);
        }
    }
}
