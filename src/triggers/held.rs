//! The reservation that this process holds while it reads a session from the table.
//!
//! A guard on the stack would not do: FATAL, as by `pg_terminate_backend()`, ends a process without unwinding it. The abort
//! of the transaction, which comes before the process ends, cancels what is held.

use std::cell::Cell;

use crate::{
    pg::process_local::ProcessLocal,
    roster::{Reservation, Tenant},
};

static HELD: ProcessLocal<Cell<Option<(Tenant, Reservation)>>> = ProcessLocal::new(Cell::new(None));

/// Holds a reservation until it is taken back, or the transaction aborts. One is held at a time.
pub fn hold(tenant: Tenant, reservation: Reservation) {
    cancel();
    HELD.set(Some((tenant, reservation)));
}

/// Takes back what is held.
pub fn take() -> Option<(Tenant, Reservation)> {
    HELD.take()
}

/// Cancels what is held. Cannot fail.
pub fn cancel() {
    if let Some((tenant, reservation)) = HELD.take() {
        tenant.cancel_reservation(reservation);
    }
}
