"""What a failure over the SQL schema means, in the words of its remedy."""

from __future__ import annotations

from typing import NoReturn

from supervisor.database.error_class import ErrorClass, classify, may_be_connection_loss
from supervisor.errors import DatabaseAccessDenied, DatabaseUnavailable, SchemaIncompatible

_GRANTS = (
    "GRANT USAGE ON SCHEMA supervisor, GRANT SELECT ON ALL TABLES IN SCHEMA supervisor and"
    " GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA supervisor to the daemon's role"
)


def explain(error: Exception, found: int, known: int) -> NoReturn:
    """Raise what the daemon reacts to.

    Args:
        error: What asyncpg raised.
        found: The version that was there, 0: none, or it could not be read.
        known: The version that it was to have.

    Raises:
        DatabaseAccessDenied: A privilege is missing, or the server is read-only.
        DatabaseUnavailable: The connection was lost.
        SchemaIncompatible: Anything else: something stands in its place.
    """
    what = "upgraded" if found else "created"
    says = " ".join(str(error).split())
    code = getattr(error, "sqlstate", None)
    match classify(error):
        case ErrorClass.ACCESS_DENIED:
            raise DatabaseAccessDenied(
                f"The SQL schema cannot be read or {what}: {says} ({code}). Run `pgsupervisor migrate` with the"
                " login of a role that may create it (PGSUPERVISOR__DATABASE__DSN=…); a daemon that does not own it"
                f" needs {_GRANTS}."
            ) from error
        case ErrorClass.READ_ONLY:
            raise DatabaseAccessDenied(
                f"The SQL schema cannot be {what}: {says} ({code}). Run `pgsupervisor migrate` on the primary."
            ) from error
        case _ if may_be_connection_loss(error):
            raise DatabaseUnavailable(f"The connection was lost over the SQL schema: {says}") from error
        case _:
            raise SchemaIncompatible(
                f"The SQL schema cannot be brought to version {known}: {says} ({code}). Is there another schema named"
                " supervisor in this database?"
            ) from error
