-- Health checks of the settings.

CREATE FUNCTION @extschema@._health_settings()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    found text;
    active_timeout interval := current_setting('presence.active_timeout')::interval;
    heartbeat interval := current_setting('presence.heartbeat_interval')::interval;
    flush interval := current_setting('presence.flush_interval')::interval;
BEGIN
    check_name := 'settings';
    found := concat_ws(' ',
        CASE WHEN heartbeat > active_timeout * 0.4
             THEN 'presence.heartbeat_interval exceeds 2/5 of presence.active_timeout; the lower value is used.' END,
        CASE WHEN flush > (active_timeout - least(heartbeat, active_timeout * 0.4)) / 2
             THEN 'presence.flush_interval exceeds half of (active_timeout - heartbeat_interval); the lower value is used.' END,
        CASE WHEN current_setting('presence.retention')::interval < active_timeout
             THEN 'presence.retention is less than presence.active_timeout; sessions that time out cannot resume.' END,
        CASE WHEN current_setting('presence.session_lifetime')::interval < active_timeout
             THEN 'presence.session_lifetime is less than presence.active_timeout; sessions expire before they time out.' END,
        CASE WHEN current_setting('presence.notify_payload') = 'off'
             THEN 'presence.notify_payload is off; changes are not notified.' END);
    ok := found = '';
    detail := CASE WHEN ok THEN 'The settings are consistent.' ELSE found END;
    hint := CASE WHEN NOT ok THEN 'Change the settings in postgresql.conf or with ALTER SYSTEM, and reload.' END;
    RETURN NEXT;
END
$function$;

CREATE FUNCTION @extschema@._health_identity()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    found text;
BEGIN
    check_name := 'identity';
    found := current_setting('presence.user_id_function', true);
    BEGIN
        ok := COALESCE(found, '') = ''
              OR (cardinality(parse_ident(found)) > 1
                  AND EXISTS (SELECT FROM pg_proc p
                               WHERE p.oid = to_regprocedure(found || '(uuid)') AND p.prorettype = 'uuid'::regtype
                                 AND p.prokind = 'f' AND NOT p.proretset));
    EXCEPTION WHEN OTHERS THEN
        -- Not the name of anything.
        ok := false;
    END;
    detail := CASE WHEN found IS NULL OR found = '' THEN 'The identity of a client is the ID of its user.'
                   WHEN ok THEN format('The function %s maps identities to users.', found)
                   ELSE format('%s is not the schema-qualified name of a function from uuid to uuid.', found) END;
    hint := CASE WHEN NOT ok
        THEN 'Set presence.user_id_function to the schema-qualified name of such a function.' END;
    RETURN NEXT;
END
$function$;

CREATE FUNCTION @extschema@._health_logging()
RETURNS TABLE (check_name pg_catalog.text, ok pg_catalog.bool, detail pg_catalog.text, hint pg_catalog.text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    check_name := 'logging';
    ok := (current_setting('log_parameter_max_length') = '0'
           OR (current_setting('log_statement') NOT IN ('all', 'mod')
               AND current_setting('log_min_duration_statement') = '-1'
               AND current_setting('log_min_duration_sample') = '-1'
               AND current_setting('log_transaction_sample_rate')::numeric = 0))
          AND current_setting('log_parameter_max_length_on_error') = '0'
          -- A custom plan contains the values of its parameters; from 16 on they are logged beside each plan, too.
          AND (COALESCE(current_setting('auto_explain.log_min_duration', true), '-1') = '-1'
               OR current_setting('auto_explain.log_verbose') = 'off'
              AND COALESCE(current_setting('auto_explain.log_parameter_max_length', true), '0') = '0');
    detail := CASE WHEN ok THEN 'Statement parameters, and so tokens, are not logged.'
                   ELSE 'Statement parameters may be logged, including tokens.' END;
    hint := CASE WHEN NOT ok
        THEN format('Set log_parameter_max_length%s and log_parameter_max_length_on_error to 0 and auto_explain.log_verbose to '
                    'off, and pass tokens as parameters, not as literals.',
                    CASE WHEN current_setting('auto_explain.log_parameter_max_length', true) IS NOT NULL
                         THEN ', auto_explain.log_parameter_max_length' END) END;
    RETURN NEXT;
END
$function$;
