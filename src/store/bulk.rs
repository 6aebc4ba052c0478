//! Statements on many rows of our own tables, run as their owner.
//!
//! Each is planned once, without looking at its arguments, and with the plan we know to be right: look-ups by index
//! for batches, one pass for whole tables. Left to itself the planner may take a table that was empty a minute ago for
//! an empty one, and join a batch of thousands to it row by row without an index.

use std::cell::RefCell;
use std::rc::Rc;

use pgrx::{datum::DatumWithOid, pg_sys, prelude::*, spi::OwnedPreparedStatement};
use uuid::Uuid;

use super::{as_owner, statement::schema_renames};
use crate::{core::time::Micros, errors, installed, text};

/// How a statement finds its rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// By index or by place, few rows of a table that may be large.
    Point,
    /// By reading a table from one end to the other.
    Scan,
}

/// What a statement does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It reads, as of the transaction's snapshot, and takes no transaction id.
    Reads,
    /// It writes.
    Writes,
}

/// A statement of ours. Meant for a `thread_local!`.
pub struct Statement {
    /// Its text, given the quoted name of the schema.
    text: fn(&str) -> String,
    arguments: &'static [pg_sys::Oid],
    columns: &'static [pg_sys::Oid],
    access: Access,
    effect: Effect,
    kept: RefCell<Option<Kept>>,
}

/// A plan, and what it was made for.
struct Kept {
    sessions: pg_sys::Oid,
    renames: u32,
    plan: Rc<OwnedPreparedStatement>,
}

impl Statement {
    pub const fn new(
        text: fn(&str) -> String,
        arguments: &'static [pg_sys::Oid],
        columns: &'static [pg_sys::Oid],
        access: Access,
        effect: Effect,
    ) -> Statement {
        Statement {
            text,
            arguments,
            columns,
            access,
            effect,
            kept: RefCell::new(None),
        }
    }

    /// Runs it, and calls `row` with each row it gives. To be called in a transaction. Errors: whatever PostgreSQL
    /// raises, and 55000 where the tables are not what the install script made.
    pub fn run(&self, arguments: &[DatumWithOid], mut row: impl FnMut(&Row)) {
        as_owner(|| {
            let _plans = Planning::choose(self.access);
            Spi::connect_mut(|client| {
                let plan = self.plan(client);
                let ran = match self.effect {
                    Effect::Reads => client.select(&*plan, None, arguments),
                    Effect::Writes => client.update(&*plan, None, arguments),
                };
                if ran.is_err() {
                    errors::damaged_install();
                }
                // SAFETY: the result of the statement just run, which lives until SPI is closed behind us.
                unsafe { each_row(self.columns, &mut row) };
            });
        });
    }

    /// Runs it as a cursor, and calls `rows` with each batch of at most `batch` rows until it says false. No more
    /// than one batch is in memory at a time.
    pub fn run_in_batches(
        &self,
        arguments: &[DatumWithOid],
        batch: i64,
        mut row: impl FnMut(&Row),
        mut go_on: impl FnMut() -> bool,
    ) {
        as_owner(|| {
            let _plans = Planning::choose(self.access);
            let mut name = Spi::connect_mut(|client| {
                let plan = self.plan(client);
                match client.try_open_cursor(&*plan, arguments) {
                    Ok(cursor) => cursor.detach_into_name(),
                    Err(_) => errors::damaged_install(),
                }
            });
            // A connection for each batch, as SPI keeps every result until its connection is closed.
            loop {
                let next = Spi::connect_mut(|client| {
                    let Ok(mut cursor) = client.find_cursor(&name) else {
                        errors::damaged_install()
                    };
                    let fetched = match cursor.fetch(batch) {
                        Ok(table) => table.len(),
                        Err(_) => errors::damaged_install(),
                    };
                    // SAFETY: the result of the fetch just made, which lives until SPI is closed behind us.
                    unsafe { each_row(self.columns, &mut row) };
                    let more = fetched > 0 && go_on();
                    more.then(|| cursor.detach_into_name())
                });
                match next {
                    Some(same) => name = same,
                    None => return,
                }
            }
        });
    }

    fn plan(&self, client: &spi::SpiClient) -> Rc<OwnedPreparedStatement> {
        let sessions = installed::get().sessions;
        let renames = schema_renames();
        if let Some(kept) = &*self.kept.borrow()
            && kept.sessions == sessions
            && kept.renames == renames
        {
            return kept.plan.clone();
        }
        let text = (self.text)(&installed::schema_name());
        let types: Vec<PgOid> = self.arguments.iter().map(|&oid| PgOid::from(oid)).collect();
        let prepared = match self.effect {
            Effect::Reads => client.prepare(text.as_str(), &types),
            Effect::Writes => client.prepare_mut(text.as_str(), &types),
        };
        let Ok(prepared) = prepared else {
            errors::damaged_install()
        };
        let plan = Rc::new(prepared.keep());
        self.kept.replace(Some(Kept {
            sessions,
            renames,
            plan: plan.clone(),
        }));
        plan
    }
}

/// Planner settings, until it is dropped.
pub(super) struct Planning(i32);

impl Planning {
    pub(super) fn choose(access: Access) -> Planning {
        let seqscan = if access == Access::Scan {
            c"on"
        } else {
            c"off"
        };
        // SAFETY: paired with AtEOXact_GUC in `drop`, or undone by the abort if an error gets past it.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        for (name, value) in [
            (c"plan_cache_mode", c"force_generic_plan"),
            (c"enable_seqscan", seqscan),
            (c"enable_hashjoin", c"off"),
            (c"enable_mergejoin", c"off"),
            (c"enable_bitmapscan", c"off"),
            (c"jit", c"off"),
        ] {
            // SAFETY: names and values are C strings; the settings exist in every version.
            unsafe {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
        }
        Planning(level)
    }
}

impl Drop for Planning {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the level that `choose` opened.
            unsafe { pg_sys::AtEOXact_GUC(false, self.0) };
        }
    }
}

/// One row of a result. Columns are numbered from 0; asking for one as another type than it has is a panic.
pub struct Row<'a> {
    columns: &'static [pg_sys::Oid],
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl Row<'_> {
    fn datum(&self, column: usize, oid: pg_sys::Oid) -> Option<pg_sys::Datum> {
        assert_eq!(self.columns[column], oid, "column {column}");
        (!self.nulls[column]).then(|| self.values[column])
    }

    /// A uuid that may be null.
    pub fn uuid(&self, column: usize) -> Option<Uuid> {
        self.datum(column, pg_sys::UUIDOID).map(|datum| {
            // SAFETY: a datum of type uuid, checked above, points at 16 bytes.
            Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
        })
    }

    /// A point in time that may be null.
    pub fn time(&self, column: usize) -> Option<Micros> {
        self.datum(column, pg_sys::TIMESTAMPTZOID)
            .map(|datum| datum.value() as Micros)
    }

    /// A number that may be null.
    pub fn number(&self, column: usize) -> Option<i64> {
        self.datum(column, pg_sys::INT8OID)
            .map(|datum| datum.value() as i64)
    }

    /// A flag; null is false.
    pub fn flag(&self, column: usize) -> bool {
        self.datum(column, pg_sys::BOOLOID)
            .is_some_and(|datum| datum.value() != 0)
    }

    /// A text; none where it is null, or where it is no UTF-8 and cannot be made so.
    pub fn text(&self, column: usize) -> Option<String> {
        let datum = self.datum(column, pg_sys::TEXTOID)?;
        // SAFETY: a datum of type text, checked above, which lives as long as the row.
        text::try_decode(unsafe { text::bytes(datum) }).map(str::to_owned)
    }

    /// Whether a value is not null.
    pub fn has(&self, column: usize) -> bool {
        !self.nulls[column]
    }
}

/// Calls `f` with each row of the last SPI result, whose columns have to be of these types.
///
/// # Safety
/// The last SPI call ran a statement or fetched from a cursor, and its result has not been freed.
unsafe fn each_row(columns: &'static [pg_sys::Oid], f: &mut impl FnMut(&Row)) {
    if columns.is_empty() {
        return;
    }
    // SAFETY: SPI_tuptable is the last result, or null where there is none; `vals` has `numvals` tuples described by
    // `tupdesc`, of as many columns as both arrays have room for, checked before the first is read.
    unsafe {
        let Some(table) = pg_sys::SPI_tuptable.as_ref() else {
            return;
        };
        let count = (*table.tupdesc).natts as usize;
        let matches = count == columns.len()
            && (0..count).all(|n| pg_sys::SPI_gettypeid(table.tupdesc, n as i32 + 1) == columns[n]);
        if !matches {
            errors::damaged_install();
        }
        let mut values = vec![pg_sys::Datum::from(0); count];
        let mut nulls = vec![false; count];
        for n in 0..table.numvals as usize {
            let tuple = *table.vals.add(n);
            pg_sys::heap_deform_tuple(
                tuple,
                table.tupdesc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            f(&Row {
                columns,
                values: &values,
                nulls: &nulls,
            });
        }
    }
}

/// A UUID as an argument.
pub fn uuid(id: Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*id.as_bytes())
}

/// A point in time as an argument; what PostgreSQL cannot store becomes infinity.
pub fn time(at: Micros) -> TimestampWithTimeZone {
    TimestampWithTimeZone::try_from(at)
        .unwrap_or_else(|_| TimestampWithTimeZone::positive_infinity())
}
