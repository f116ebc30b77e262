"""The privileges of a role that uses the SQL schema without owning it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Each is completed by `TO role`. Nothing else is needed: the functions run as their owner and do all the writing.
DAEMON_GRANTS = (
    "GRANT USAGE ON SCHEMA supervisor",
    "GRANT SELECT ON ALL TABLES IN SCHEMA supervisor",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA supervisor",
)
APPEND_GRANTS = (
    "GRANT USAGE ON SCHEMA supervisor",
    "GRANT EXECUTE ON FUNCTION supervisor.append",
)

# Before the first file of a migration: remember what the schema has. The setting ends with the transaction.
REMEMBER_OBJECTS_SQL = """
SELECT set_config('supervisor.objects_before', coalesce(string_agg(o.name, ' '), ''), true) FROM (
    SELECT 'routine:' || oid FROM pg_proc WHERE pronamespace = 'supervisor'::regnamespace
    UNION ALL
    SELECT 'relation:' || oid FROM pg_class WHERE relnamespace = 'supervisor'::regnamespace
) AS o (name)
"""
# After the last file: grant the new objects to the roles that run daemons, and take the new functions from PUBLIC. A
# role runs daemons if it may execute the function that every daemon calls, by a grant or as its owner (another role may
# be the one that migrates). PUBLIC counts if an administrator granted it that function. The privileges on older objects
# stay as they are.
GRANT_NEW_OBJECTS_SQL = """
DO $$
DECLARE
    objects_before text[] := string_to_array(current_setting('supervisor.objects_before'), ' ');
    daemon_roles text;
    object text;
BEGIN
    SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, ', ')
        INTO daemon_roles
        FROM pg_proc p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
        WHERE p.oid = to_regprocedure('supervisor.cluster_snapshot(int)') AND 'routine:' || p.oid = ANY (objects_before)
            AND a.privilege_type = 'EXECUTE';
    FOR object IN
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = 'supervisor'::regnamespace AND 'routine:' || p.oid <> ALL (objects_before)
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', object);
        IF daemon_roles IS NOT NULL THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', object, daemon_roles);
        END IF;
    END LOOP;
    FOR object IN
        SELECT c.oid::regclass FROM pg_class c
        WHERE c.relnamespace = 'supervisor'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
            AND 'relation:' || c.oid <> ALL (objects_before)
    LOOP
        IF daemon_roles IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON TABLE %s TO %s', object, daemon_roles);
        END IF;
    END LOOP;
END $$
"""


def listed(grants: Sequence[str]) -> str:
    """Return grants as a part of a sentence."""
    return f"{', '.join(grants[:-1])} and {grants[-1]}"
