::pgrx::pg_module_magic!(name, version);

mod core;
mod errors;
mod identity;
mod installed;
mod settings;

::pgrx::extension_sql_file!("../sql/preflight.sql", name = "preflight", bootstrap);
::pgrx::extension_sql_file!("../sql/types.sql", name = "types", requires = ["preflight"]);
::pgrx::extension_sql_file!("../sql/tables.sql", name = "tables", requires = ["types"]);
