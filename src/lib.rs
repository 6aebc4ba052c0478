::pgrx::pg_module_magic!(name, version);

mod core;
mod errors;
mod settings;
