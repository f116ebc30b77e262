"""A failed operation on the store's files as an error: does it pass by itself, or must an operator act?"""

from __future__ import annotations

import errno

from supervisor.errors import EmbeddedDatabaseFailed, EmbeddedDatabaseMisconfigured

_TRANSIENT = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}


def store_error(sentence: str, error: OSError) -> EmbeddedDatabaseFailed | EmbeddedDatabaseMisconfigured:
    """Return the error for an operation on a file that failed with `error`; `sentence` says which operation."""
    kind = EmbeddedDatabaseFailed if error.errno in _TRANSIENT else EmbeddedDatabaseMisconfigured
    return kind(f"{sentence}: {error.strerror}")
