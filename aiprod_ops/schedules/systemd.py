"""A service and a timer for each job. Source: systemd.service(5), systemd.timer(5), systemd.exec(5)."""

from aiprod_ops.domain.calendars import MINUTE
from aiprod_ops.domain.schedules import Job
from aiprod_ops.schedules.installation import HEAD, STATE, Installation

#: `check --all` and `prove` (a copy restored and started) were traced: 94 system calls, all of @system-service.
#: Not here: MemoryDenyWriteExecute (PostgreSQL's JIT on a copy), RemoveIPC (of another job's copy, too), ProtectProc
#: (which processes hold a copy).
_HARDENING = """\
NoNewPrivileges=yes
ProtectSystem=strict
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
"""
_UNPRIVILEGED = "CapabilityBoundingSet=\nRestrictNamespaces=yes\n"  #: root needs both to run a copy as another user


def files(jobs: list[Job], where: Installation) -> dict[str, str]:
    """By name, as they lie in /etc/systemd/system."""
    made: dict[str, str] = {}
    for job in jobs:
        made[f"{job.name}.service"] = _service(job, where)
        made[f"{job.name}.timer"] = _timer(job)
    return made


def _service(job: Job, where: Installation) -> str:
    page = where.page(job)
    # A WARNING is told by its alert; a unit is failed when somebody has to look at it now. A drill knows no WARNING.
    success = "SuccessExitStatus=1\n" if job.wish.work == "check" else ""
    return (
        f"{HEAD}[Unit]\nDescription=aiprod-ops: {_literal(job.title)}\n"
        + (f"Documentation={_literal(page)}\n" if page else "")
        + "Wants=network-online.target\nAfter=network-online.target\n\n"
        f"[Service]\nType=oneshot\nUser={_literal(where.user)}\nExecStart={' '.join(map(_word, where.command(job)))}\n"
        f"{success}TimeoutStartSec={job.deadline:.0f}\n"
        "# SIGTERM lets a run finish or undo what it is doing.\n"
        f"TimeoutStopSec=300\nKillMode=mixed\n{_secrets(job, where)}{_places(where)}{_HARDENING}"
        + ("" if where.user == "root" else _UNPRIVILEGED)
    )


def _secrets(job: Job, where: Installation) -> str:
    """The file of DSNs has to be there only where a DSN is taken from it."""
    optional = "" if job.place.variables else "-"
    lines = f"EnvironmentFile={optional}{_literal(where.environment_file)}\n"
    if where.passfile:
        lines += f"LoadCredential=pgpass:{_literal(where.passfile)}\nEnvironment=PGPASSFILE=%d/pgpass\n"
    return lines


def _places(where: Installation) -> str:
    """The state, what may be written, and what is hidden: never what the job itself has to see."""
    state = where.state or STATE
    writes = [path for path in (where.prom_folder, *where.writes) if path]
    seen = (where.program, state, where.environment_file, *where.reads, *(each.removeprefix("-") for each in writes))
    if state.startswith("/var/lib/"):
        lines = f"StateDirectory={_literal(state.removeprefix('/var/lib/'))}\nStateDirectoryMode=0700\n"
    else:
        lines, writes = "", [state, *writes]
    if not where.state:
        lines += f"Environment=AIPROD_OPS_STATE={STATE}\n"
    if writes:
        lines += f"ReadWritePaths={' '.join(map(_word, writes))}\n"
    lines += f"ProtectHome={'read-only' if _below(seen, '/home', '/root', '/run/user') else 'yes'}\n"
    return lines + f"PrivateTmp={'no' if _below(seen, '/tmp', '/var/tmp') else 'yes'}\n"  # noqa: S108


def _below(paths: tuple[str, ...], *folders: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for path in paths for folder in folders)


def _timer(job: Job) -> str:
    if job.calendar is not None:
        note = f"# {job.calendar.note}\n" if job.calendar.note else ""
        # Of the two only OnCalendar is made up for after a time without power (Persistent).
        when = f"{note}OnCalendar={job.calendar.systemd}\nPersistent=true\n"
    else:
        first = min(job.offset, 15 * MINUTE)
        when = (
            "# No calendar can say this interval. It is counted from the last start, and anew after each boot.\n"
            f"OnBootSec={first:.0f}\nOnUnitActiveSec={job.wish.every:.0f}\n"
        )
    return (
        f"{HEAD}[Unit]\nDescription=aiprod-ops: when to {_literal(job.title)}\n\n[Timer]\n{when}"
        f"RandomizedDelaySec={job.spread:.0f}\nFixedRandomDelay=true\n\n[Install]\nWantedBy=timers.target\n"
    )


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """One word of a command line, as systemd reads it: its own quotes, `%` and `$` are doubled."""
    text = text.replace("%", "%%").replace("$", "$$")
    if text and not set(text) & set(" \t\n\"'\\;"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
