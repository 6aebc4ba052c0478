//! The call that a statement consists of.

use std::ptr;

use pgrx::pg_sys;

/// A call with a constant or a parameter as its only argument.
pub struct Call<'a> {
    pub expression: &'a pg_sys::FuncExpr,
    pub argument: pg_sys::NullableDatum,
    /// Whether the argument is a uuid.
    pub is_of_uuid: bool,
    /// The column of the result.
    pub column: &'a pg_sys::TargetEntry,
}

/// Returns the call if a statement is `SELECT function(argument)`, and nothing else, and is not run by EXPLAIN.
///
/// # Safety
/// PostgreSQL is about to start the query.
#[inline(always)]
pub unsafe fn only_call(query: &pg_sys::QueryDesc, flags: i32) -> Option<Call<'_>> {
    // SAFETY: each node is read as the type of its tag, and the nodes and lists of a planned statement are valid.
    unsafe {
        let statement = query.plannedstmt.as_ref()?;
        let plan = downcast::<pg_sys::Result>(statement.planTree.cast(), pg_sys::NodeTag::T_Result)?;
        let column = only_element::<pg_sys::TargetEntry>(plan.plan.targetlist)?;
        let expression = downcast::<pg_sys::FuncExpr>(column.expr.cast(), pg_sys::NodeTag::T_FuncExpr)?;
        if !plan.resconstantqual.is_null()
            || !plan.plan.qual.is_null()
            || !plan.plan.lefttree.is_null()
            || !statement.subplans.is_null()
            || flags != 0
            || query.instrument_options != 0
        {
            return None;
        }
        let argument = only_element::<pg_sys::Node>(expression.args)?;
        let (argument, argument_type) = match argument.type_ {
            pg_sys::NodeTag::T_Const => {
                let constant = &*ptr::from_ref(argument).cast::<pg_sys::Const>();
                let value = pg_sys::NullableDatum {
                    value: constant.constvalue,
                    isnull: constant.constisnull,
                };
                (value, constant.consttype)
            }
            pg_sys::NodeTag::T_Param => {
                let parameter = &*ptr::from_ref(argument).cast::<pg_sys::Param>();
                (passed_value(parameter, query)?, parameter.paramtype)
            }
            _ => return None,
        };
        Some(Call {
            expression,
            argument,
            is_of_uuid: argument_type == pg_sys::UUIDOID,
            column,
        })
    }
}

/// Returns the value of a parameter if it has been passed with the query, and has the type that was planned for.
///
/// # Safety
/// The query's parameters are PostgreSQL's.
#[inline(always)]
unsafe fn passed_value(parameter: &pg_sys::Param, query: &pg_sys::QueryDesc) -> Option<pg_sys::NullableDatum> {
    // SAFETY: there are `numParams` values, numbered from 1, unless a hook fetches them one by one.
    unsafe {
        let values = query.params.as_ref()?;
        let is_passed = parameter.paramkind == pg_sys::ParamKind::PARAM_EXTERN
            && (1..=values.numParams).contains(&parameter.paramid)
            && values.paramFetch.is_none();
        if !is_passed {
            return None;
        }
        let passed = &*values.params.as_ptr().add(parameter.paramid as usize - 1);
        (passed.ptype == parameter.paramtype).then_some(pg_sys::NullableDatum {
            value: passed.value,
            isnull: passed.isnull,
        })
    }
}

/// Returns a node as a `T` if it has the tag of that type.
///
/// # Safety
/// `node` is null or a node, and `tag` is the tag of `T`.
#[inline(always)]
unsafe fn downcast<'a, T>(node: *const pg_sys::Node, tag: pg_sys::NodeTag) -> Option<&'a T> {
    // SAFETY: as the caller promises.
    unsafe { (node.as_ref()?.type_ == tag).then(|| &*node.cast::<T>()) }
}

/// Returns the element of a list that has only one.
///
/// # Safety
/// `list` is null or a list of pointers to `T`.
#[inline(always)]
unsafe fn only_element<'a, T>(list: *const pg_sys::List) -> Option<&'a T> {
    // SAFETY: as the caller promises.
    unsafe {
        let list = list.as_ref()?;
        (list.length == 1).then(|| &*(*list.elements).ptr_value.cast::<T>())
    }
}
