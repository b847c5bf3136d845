"""The formats by name, and what each of them wants to know or cannot say."""

from collections.abc import Callable, Mapping
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
    if missing := [field for field in chosen.needs if not getattr(where, field)]:
        named = ", ".join(map(_option, missing))
        hint = _HINTS.get(missing[0]) if len(missing) == 1 else None
        raise UsageError(f"--format {name} needs {named}", hint=hint or f"add {named}")
    return chosen.files(jobs, where)


_GOOGLE = ("cloud-scheduler", "terraform")
#: Options that only some formats know.
_ONLY = {
    "image": ("kubernetes", *_GOOGLE),
    "namespace": ("kubernetes",),
    "secret": ("kubernetes", *_GOOGLE),
    "project": _GOOGLE,
    "location": _GOOGLE,
    "service_account": ("cloud-scheduler",),  # terraform makes its own
    "state_nfs": _GOOGLE,
    "subnetwork": _GOOGLE,
}


def fit(name: str, given: Mapping[str, str]) -> None:
    """Raises UsageError for options that the format would ignore."""
    strange = [_option(field) for field, formats in _ONLY.items() if given.get(field) and name not in formats]
    if strange:
        raise UsageError(f"--format {name} does not know {', '.join(strange)}", hint="leave that out")
    if given.get("subnetwork") and not given.get("state_nfs"):
        raise UsageError("--subnetwork is that of the share, and there is none", hint="add --state-nfs SERVER:/PATH")


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"
