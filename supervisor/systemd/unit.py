"""The hardened unit for an installation: what `pgsupervisor unit` prints and what the folder systemd/ ships."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from supervisor.exit_status import ExitStatus
from supervisor.systemd.unit_access import hidden, outermost, path_to_bind, under_homes

# What systemd accepts for User= with DynamicUser=; Linux allows 31 characters.
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


@dataclass(frozen=True, slots=True)
class Installation:
    """What the unit is for.

    Attributes:
        name: The daemon's name, or `%i` in a template.
        command: The words that start the program, the first an absolute path.
        config: The configuration's absolute path.
        reads: Further files and folders that the daemon reads: its Python, `python_path`.
        writes: Further folders that it writes: a store outside its state directory.
        dsn_file: The file of `dsn_file`, if that is where the connection string comes from.
        stop_timeout_s: The longest that work in flight may take after SIGTERM.
        is_template: Whether `%` starts one of systemd's specifiers in the name and the paths.
    """

    name: str
    command: tuple[str, ...]
    config: Path
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    dsn_file: Path | None = None
    stop_timeout_s: float = 30.0
    is_template: bool = False

    @property
    def everything_read(self) -> tuple[Path, ...]:
        """Every path that the daemon's user has to reach; dsn_file is read by systemd, as root."""
        return outermost((*self.reads, Path(self.command[0]), path_to_bind(self.config)))


def render_unit(installation: Installation) -> str:
    """Return the text of the unit."""
    sections = (_HEAD, _service(installation), _HARDENING, _paths(installation), _INSTALL)
    return "\n".join(section.strip("\n") + "\n" for section in sections if section)


def unit_name(name: str) -> str:
    """Return the file that the unit of a daemon of this name belongs in."""
    return "pgsupervisor.service" if name == "pgsupervisor" else f"pgsupervisor-{name}.service"


def _service(installation: Installation) -> str:
    command = " ".join(_word(word, installation, in_exec=True) for word in installation.command)
    config = _word(str(installation.config), installation, in_exec=True)
    return _SERVICE.format(
        command=command,
        config=config,
        name=_word(installation.name, installation),
        user=_user(installation),
        credential=_credential(installation),
        final=f"{ExitStatus.USAGE:d} {ExitStatus.CONFIG:d}",
        stop=round(installation.stop_timeout_s) + 15,
    )


def _user(installation: Installation) -> str:
    name = installation.name
    user = name if name == "pgsupervisor" else f"pgsupervisor-{name}"
    if installation.is_template or _USER_NAME.fullmatch(user):
        return f"User={user}"
    return "# The daemon's name is no valid user name, so systemd chooses one."


def _credential(installation: Installation) -> str:
    name = _word(f"dsn:pgsupervisor.{installation.name}.dsn", installation)
    if installation.dsn_file is None:
        return f"LoadCredential={name}"
    path = _word(f"dsn:{installation.dsn_file}", installation)
    # The environment wins over the file, so the daemon reads systemd's copy and never the original.
    return f"LoadCredential={path}\nEnvironment=PGSUPERVISOR__DATABASE__DSN_FILE=%d/dsn"


def _paths(installation: Installation) -> str:
    shown, lines = hidden(installation.everything_read), []
    if under_homes(installation.everything_read):
        lines += ["# The homes stay hidden except for the following.", "ProtectHome=tmpfs"]
    else:
        lines += ["ProtectHome=yes"]
    if shown:
        lines += ["# Read by the daemon, and otherwise hidden from it; an installation under /opt needs none of this."]
        lines += [f"BindReadOnlyPaths={_word(str(path), installation)}" for path in shown]
    if installation.writes:
        lines += ["# Outside the state directory: the unit's user has to own these."]
        lines += [f"ReadWritePaths={_word(str(path), installation)}" for path in installation.writes]
    return "\n".join(lines)


def _word(text: str, installation: Installation, *, in_exec: bool = False) -> str:
    """Return `text` as one word of a unit file, whatever letters it has."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not installation.is_template:
        escaped = escaped.replace("%", "%%")
    if in_exec:
        escaped = escaped.replace("$", "$$")
    return f'"{escaped}"' if escaped != text or re.search(r"[\s;']", text) else text


_HEAD = """
[Unit]
Description=pgsupervisor: workers on PostgreSQL (%N)
# Only the order: the daemon itself waits for its database, and at shutdown it ends before a local one.
After=network.target postgresql.service
# An outage at boot must not use up systemd's start limit; RestartSec= sets the pace.
StartLimitIntervalSec=0
"""

_SERVICE = """
[Service]
Type=notify
NotifyAccess=main
# Blocking SIGHUP from before exec: one that comes while Python itself starts waits instead of killing it.
ExecStart=/usr/bin/env --block-signal=HUP {command} run -c {config}
# Waits for the outcome, so a refused configuration fails `systemctl reload`, and the old one stays in force.
ExecReload={command} reload -c {config}
# Also after a clean exit, which only a stray SIGTERM can bring about; `systemctl stop` is not undone by it.
Restart=always
RestartSec=5s
# A restart does not repair a wrong command line or configuration.
RestartPreventExitStatus={final}
# The daemon extends the first while it connects and the second while it drains.
TimeoutStartSec=90s
TimeoutStopSec={stop}s
WatchdogSec=30s
# SIGTERM to the daemon alone: it ends its own children (an embedded PostgreSQL), in order.
KillMode=mixed
# An out-of-memory kill of one child is the daemon's to handle.
OOMPolicy=continue
LimitNOFILE=65536

# A user for this instance alone, allocated by systemd: nothing to create, nothing to remove.
DynamicUser=yes
{user}
# /run/pgsupervisor/NAME/control.sock: only the daemon's user and root can reach it.
RuntimeDirectory=pgsupervisor/{name}
RuntimeDirectoryMode=0700
StateDirectory=pgsupervisor/{name}
StateDirectoryMode=0700
# The connection string, from a file that only root can read; below /etc/credstore, and it may be missing.
{credential}

SyslogIdentifier=pgsupervisor
# The daemon folds repeated entries; this stops a worker that prints in a loop from filling the journal.
LogRateLimitIntervalSec=30s
LogRateLimitBurst=5000
"""

_HARDENING = """
# Hardening. Everything that is not removed is needed: IP and unix sockets (the database, journald, systemd) and a full
# /proc (workers read the machine's load, PostgreSQL's starter its boot time).
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
UMask=0077
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
# An embedded PostgreSQL keeps its shared memory here; it is gone with the unit even after a crash.
PrivateIPC=yes
PrivateUsers=yes
PrivateMounts=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# Refused calls fail as they do for any unprivileged process, instead of killing the daemon.
SystemCallErrorNumber=EPERM
"""

_INSTALL = """
[Install]
WantedBy=multi-user.target
"""
