"""The formats by name, and what each of them wants to know or cannot say."""

from collections.abc import Callable
from dataclasses import dataclass

from aiprod_ops.domain.schedules import Job
from aiprod_ops.errors import UsageError
from aiprod_ops.schedules import cloud, cron, kubernetes, rules, systemd, terraform
from aiprod_ops.schedules.installation import Installation


@dataclass(frozen=True, slots=True)
class Format:
    """`files` makes them; `needs` are fields of the installation without which they would be wrong. Where `contains` is
    true the jobs run in containers, not on this machine; where it `forgets`, no lock holds between two of them, and no
    state outlives one unless a share is mounted: nothing that acts is scheduled there. What `makes` the instance as
    well has to know what is promised of it."""

    files: Callable[[list[Job], Installation], dict[str, str]]
    needs: tuple[str, ...] = ()
    contains: bool = False
    forgets: bool = False
    makes: bool = False


FORMATS = {
    "systemd": Format(systemd.files),
    "cron": Format(cron.files),
    "kubernetes": Format(kubernetes.files, ("image",), contains=True),
    "cloud-scheduler": Format(
        cloud.files, ("image", "project", "location", "service_account"), contains=True, forgets=True
    ),
    "terraform": Format(terraform.files, ("image", "project", "location"), contains=True, forgets=True, makes=True),
    "prometheus-rules": Format(rules.files, ("pages",)),
}
_HINTS = {"pages": "add --pages URL, or `pages` below [schedule] in service.toml"}


def render(name: str, jobs: list[Job], where: Installation) -> dict[str, str]:
    """The files of a format by name. Raises UsageError for what is missing, and for an interval it cannot say."""
    chosen = FORMATS[name]
    for field in chosen.needs:
        if not getattr(where, field):
            option = f"--{field.replace('_', '-')}"
            raise UsageError(f"--format {name} needs {option}", hint=_HINTS.get(field, f"add {option}"))
    return chosen.files(jobs, where)
