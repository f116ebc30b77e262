"""Where the connection string comes from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from support.config_file import DSN, WORKER, config_of, faults_of

from supervisor.config.model import EmbeddedStore, Server

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2"
URI = f"postgresql://u:{SECRET}@h/app"


def _server(folder: Path, text: str, **environ: str) -> Server:
    target = config_of(folder, text, **environ).database.target
    assert isinstance(target, Server)
    return target


def test_a_file_holds_the_dsn(tmp_path: Path) -> None:
    """dsn_file is relative to the configuration, and the line break at its end does not count."""
    (tmp_path / "secret").write_text(f"{URI}\r\n")
    server = _server(tmp_path, f'[database]\ndsn_file = "secret"\n{WORKER}')
    assert (server.dsn.secret_value(), server.source) == (URI, str(tmp_path / "secret"))
    assert SECRET not in f"{server!r} {server.dsn} {server.dsn!r}"


def test_the_credential_of_systemd_holds_the_dsn(tmp_path: Path) -> None:
    """A credential named dsn is found by itself; other credentials mean nothing."""
    (tmp_path / "dsn").write_text(URI)
    server = _server(tmp_path, WORKER, CREDENTIALS_DIRECTORY=str(tmp_path), PGHOST="x")
    assert server.source == str(tmp_path / "dsn")
    (tmp_path / "dsn").unlink()
    assert _server(tmp_path, WORKER, CREDENTIALS_DIRECTORY=str(tmp_path), PGHOST="x").source == "PGHOST"


def test_the_file_comes_before_the_credential(tmp_path: Path) -> None:
    """What the configuration says counts, whatever credentials there are."""
    (tmp_path / "dsn").write_text(URI)
    server = _server(tmp_path, f"[database]\n{DSN}\n{WORKER}", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert server.source == f"{tmp_path / 'app.toml'}: database.dsn"


def test_libpqs_variables_are_the_last_resort(tmp_path: Path) -> None:
    """With libpq's variables the connection string is empty; only a service is named in it."""
    server = _server(tmp_path, WORKER, PGHOST="h", PGUSER="u")
    assert (server.dsn.secret_value(), server.source, str(server.dsn)) == ("", "PGHOST, PGUSER", "libpq's variables")
    (tmp_path / "services").write_text("[my app]\nhost = h\n")
    server = _server(tmp_path, WORKER, PGSERVICE="my app", PGSERVICEFILE=str(tmp_path / "services"))
    assert server.dsn.secret_value() == "postgresql://?service=my%20app"


def _service_faults(folder: Path, *, file: str | None, service: str = "shop", **more: str) -> list[list[str]]:
    """Return the faults of a service that is named in the dsn, and in PGSERVICE."""
    if file is not None:
        (folder / "services").write_text(file)
    environ = {"PGSERVICEFILE": str(folder / "services"), **more}
    named = f'[database]\ndsn = "postgresql://u@/?service={quote(service)}"\n{WORKER}'
    faults = [faults_of(folder, named, environ), faults_of(folder, WORKER, {**environ, "PGSERVICE": service})]
    return [[one.replace(str(folder), "DIR") for one in some] for some in faults]


def test_a_service_that_is_defined_nowhere_is_a_fault(tmp_path: Path) -> None:
    """The driver would silently connect elsewhere; the fault names the service, the file and the remedy."""
    missing = (
        'names the service "shop", but the service file DIR/services does not exist;'
        " write it, or set PGSERVICEFILE to the file that has a section [shop]"
    )
    assert _service_faults(tmp_path, file=None) == [[f"FILE: database.dsn: {missing}"], [f"PGSERVICE: {missing}"]]
    undefined = (
        'names the service "shop", but the service file DIR/services has no section [shop];'
        " add it, or set PGSERVICEFILE to the file that has it"
    )
    text = f"[shopping]\nhost = h\npassword = {SECRET}\n[DEFAULT]\nhost = h\n"
    assert _service_faults(tmp_path, file=text) == [[f"FILE: database.dsn: {undefined}"], [f"PGSERVICE: {undefined}"]]
    for there in ("shopping", "shop%20ping"):
        text = f"[{there.replace('%20', ' ')}]\nhost = h\n"
        assert _service_faults(tmp_path, file=text, service=there.replace("%20", " ")) == [[], []]


@pytest.mark.parametrize("text", [f"{SECRET}\n[shop]\n", f"[shop]\n{SECRET}\n", f"[shop]\npassword = {SECRET}%\n"])
def test_a_service_that_cannot_be_understood_is_a_fault_without_its_text(tmp_path: Path, text: str) -> None:
    """A service file that the driver would fail on is a fault, which repeats nothing of the file."""
    for faults in _service_faults(tmp_path, file=text):
        (fault,) = faults
        assert "DIR/services" in fault
        assert SECRET not in fault


def test_the_service_file_is_the_home_folders_unless_said(tmp_path: Path) -> None:
    """Without PGSERVICEFILE it is ~/.pg_service.conf, as for the driver; of several services the last one counts."""
    (tmp_path / ".pg_service.conf").write_text("[shop]\nhost = h\n")
    assert faults_of(tmp_path, WORKER, {"PGSERVICE": "shop", "HOME": str(tmp_path)}) == []
    (fault,) = faults_of(tmp_path, WORKER, {"PGSERVICE": "ship", "HOME": str(tmp_path)})
    assert f"{tmp_path}/.pg_service.conf has no section [ship]" in fault
    (tmp_path / "dsn").write_text("postgresql://?service=shop&service=ship")
    (fault,) = faults_of(tmp_path, WORKER, {"CREDENTIALS_DIRECTORY": str(tmp_path), "HOME": str(tmp_path)})
    assert fault.startswith(f'{tmp_path}/dsn: names the service "ship"')


STORES = [
    ("embedded:", EmbeddedStore()),
    ("ephemeral:", EmbeddedStore(ephemeral=True)),
]


@pytest.mark.parametrize(("dsn", "store"), STORES)
def test_a_store_of_the_daemons_own(tmp_path: Path, dsn: str, store: EmbeddedStore) -> None:
    """embedded: and ephemeral: need no server."""
    assert config_of(tmp_path, f'[database]\ndsn = "{dsn}"\n{WORKER}').database.target == store


def test_a_store_may_have_a_place(tmp_path: Path) -> None:
    """embedded: takes an absolute path, or one that is relative to the configuration."""
    for text, path in (("embedded:/x/y", "/x/y"), ("embedded:data", str(tmp_path / "data"))):
        target = config_of(tmp_path, f'[database]\ndsn = "{text}"\n{WORKER}').database.target
        assert isinstance(target, EmbeddedStore)
        assert str(target.path) == path


def test_no_dsn_says_all_the_ways(tmp_path: Path) -> None:
    """Without any dsn one sentence names every way to give one."""
    assert faults_of(tmp_path, WORKER) == [
        (
            'FILE: database: there is no dsn; write dsn = "postgresql://…" or dsn_file = "…" in [database], set'
            " PGSUPERVISOR__DATABASE__DSN, hand over a systemd credential named dsn, or set libpq's PGHOST, PGUSER,"
            ' PGDATABASE; "embedded:" is a PostgreSQL of the daemon\'s own'
        )
    ]


FAULTS = [
    (f'{DSN}\ndsn_file = "x"', "database.dsn_file: dsn is given too; keep one of the two"),
    ("dsn = 5", "database.dsn: expected a text in quotes"),
    ('dsn = ""', "database.dsn: is empty"),
    (
        'dsn = "ephemeral:x"',
        (
            'database.dsn: expected "ephemeral:" with nothing after it;'
            ' a store at a place of its own is "embedded:/path"'
        ),
    ),
    (
        'dsn = "embedded://x"',
        'database.dsn: expected "embedded:", "embedded:/path" or "embedded:path"; leave out the "//"',
    ),
    (
        'dsn = "embedded:~/x"',
        'database.dsn: "~" has no meaning in a connection string; write the path in full',
    ),
    ('dsn_file = "none"', "database.dsn_file: DIR/none does not exist"),
    ('dsn_file = "."', "database.dsn_file: DIR is a directory, not a file"),
    ('dsn_file = "empty"', "database.dsn_file: DIR/empty is empty"),
    ('dsn_file = "latin"', "database.dsn_file: DIR/latin is not UTF-8 text"),
    ('dsn_file = "/dev/zero"', "database.dsn_file: /dev/zero is not a regular file"),
    (f'dsn_file = "{URI}"', "database.dsn_file: expected a path, found what looks like a connection string"),
    (
        f'dsn_file = "host=h password={SECRET}"',
        "database.dsn_file: expected a path, found what looks like a connection string",
    ),
]


@pytest.mark.parametrize(("lines", "fault"), FAULTS)
def test_a_fault_of_the_dsn_is_a_sentence(tmp_path: Path, lines: str, fault: str) -> None:
    """A fault of the dsn or its file names the key and the path."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"\xff")
    faults = faults_of(tmp_path, f"[database]\n{lines}\n{WORKER}")
    assert [one.replace(str(tmp_path), "DIR") for one in faults] == [f"FILE: {fault}"]


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:{SECRET}/@h/app",
        f"host=h password={SECRET}",
        f"mysql://u:{SECRET}@h",
        f"{SECRET}",
        f"postgresql://u:{SECRET}",
    ],
)
def test_no_fault_repeats_a_secret(tmp_path: Path, dsn: str) -> None:
    """A malformed dsn is not repeated, wherever it stands."""
    (tmp_path / "secret").write_text(dsn)
    environments = [{"PGSUPERVISOR__DATABASE__DSN": dsn}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, {}, {}]
    databases = ["", "", f'dsn = "{dsn}"', 'dsn_file = "secret"']
    for environ, line in zip(environments, databases, strict=True):
        (tmp_path / "dsn").write_text(dsn)
        faults = faults_of(tmp_path, f"[database]\n{line}\n{WORKER}", environ)
        assert faults
        assert SECRET not in "\n".join(faults)


@pytest.mark.parametrize("dsn", [URI, f"host=h password={SECRET}", f"host=h PASSWD = {SECRET}"])
@pytest.mark.parametrize("line", ["[log]\nlevel = '{}'", "[supervisor]\nready = '{}'", "database = '{}'", "'{}' = 1"])
def test_a_connection_string_at_the_wrong_key_is_not_repeated(tmp_path: Path, line: str, dsn: str) -> None:
    """What looks like a connection string is not shown as a found value or key either."""
    faults = faults_of(tmp_path, f"{line.format(dsn)}\n{WORKER}")
    assert faults
    assert SECRET not in "\n".join(faults)


def test_an_unreadable_file_says_who_needs_to_read_it(tmp_path: Path) -> None:
    """Permission denied names the user that lacks it."""
    secret = tmp_path / "secret"
    secret.write_text(URI)
    secret.chmod(0o000)
    root = os.geteuid() == 0
    if root:
        tmp_path.chmod(0o777)
        for folder in list(tmp_path.parents)[:3]:  # one more where tests run several at a time
            folder.chmod(0o755)
        (tmp_path / "app.toml").touch()
        (tmp_path / "app.toml").chmod(0o666)
        os.seteuid(65534)
    try:
        (fault,) = faults_of(tmp_path, f'[database]\ndsn_file = "secret"\n{WORKER}')
    finally:
        if root:
            os.seteuid(0)
    assert fault.startswith(f"FILE: database.dsn_file: {secret} cannot be read: permission denied; the user ")
    assert fault.endswith(" needs to read it")


def test_a_wrong_pgport_is_named(tmp_path: Path) -> None:
    """The driver would raise at the first connection; here it is a fault."""
    assert faults_of(tmp_path, WORKER, {"PGHOST": "h", "PGPORT": "x"}) == [
        "PGPORT: expected a port, a number from 1 to 65535"
    ]
