"""One file for /etc/cron.d. Source: crontab(5), cron(8) of Debian.

Nothing runs twice at once: each line ends before the next one begins (`timeout`), and a check that finds another one
running ends at once (`--alone`); a drill holds its instance's lease.
"""

import shlex

from aiprod_ops.domain.schedules import PROGRAM, Job
from aiprod_ops.errors import UsageError
from aiprod_ops.schedules.installation import HEAD, STATE, Installation

NAME = PROGRAM  #: cron reads no file whose name has a dot
_LONGEST = 998  #: characters of a command that cron takes
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def files(jobs: list[Job], where: Installation) -> dict[str, str]:
    """By name, as it lies in /etc/cron.d."""
    head = (
        f"{HEAD}# For /etc/cron.d/{NAME}: owned by root, mode 0644. Mail comes for everything but OK.\n"
        "# Times are those of the machine: where its clock is not UTC, an hour of spring and one of autumn are odd.\n"
        f"SHELL=/bin/sh\nPATH={_PATH}\nMAILTO={where.mailto}\n"
        + ("" if where.state else f"AIPROD_OPS_STATE={STATE}\n")
        + (f"PGPASSFILE={where.passfile}\n" if where.passfile else "")
    )
    return {NAME: head + "".join(_lines(job, where) for job in jobs)}


def _lines(job: Job, where: Installation) -> str:
    when = job.counted_by("cron")
    note = f" ({when.note})" if when.note else ""
    return f"\n# {job.title}{note}\n{when.cron} {where.user} {command(job, where)}\n"


def command(job: Job, where: Installation) -> str:
    """The sixth field. What the command says is mailed only if it ends with another code than 0."""
    alone = ("--alone",) if job.wish.work == "check" else ()
    limits = f"timeout --kill-after={min(300, job.deadline // 4):.0f} {job.deadline:.0f}"
    load = f"set -a; . {shlex.quote(where.environment_file)}; set +a; " if job.place.variables else ""
    run = f'{load}said=$({limits} {shlex.join(where.command(job, *alone))} 2>&1) || printf "%s\\n" "$said"'
    line = run.replace("%", "\\%")
    if len(line) > _LONGEST:
        raise UsageError(
            f"the command of {job.name} has {len(line)} characters; cron takes {_LONGEST}",
            hint="shorter paths, or --format systemd",
        )
    return line
