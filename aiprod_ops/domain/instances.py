"""How an instance and its replicas are set up, as promised or as a platform tells, and where the two differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aiprod_ops.domain.findings import Finding


@dataclass(frozen=True, slots=True)
class Setup:
    """One instance. What is None was not promised, or is not told; so is `flags`, while an empty one says that there
    are none. A `primary` of '' says that it is one. Sizes of backups are counts, `log_days` days of WAL."""

    version: str | None = None  #: POSTGRES_18
    edition: str | None = None
    tier: str | None = None
    availability: str | None = None  #: REGIONAL, ZONAL
    region: str | None = None
    disk_grows: bool | None = None
    backups: bool | None = None
    retained: int | None = None
    point_in_time: bool | None = None
    log_days: int | None = None
    insights: bool | None = None
    maintenance: tuple[int, int] | None = None  #: day (1 is Monday) and hour, UTC
    protected: bool | None = None  #: against deletion
    public_address: bool | None = None
    ssl_mode: str | None = None
    flags: Mapping[str, str] | None = None
    primary: str | None = None


@dataclass(frozen=True, slots=True)
class Setups:
    """A primary and its replicas by name; `dr_replica` is the one that a disaster promotes, '' for none."""

    name: str
    main: Setup
    replicas: Mapping[str, Setup] = field(default_factory=dict)
    dr_replica: str | None = None


#: Field: what people call it, and whether a deviation may cost data or lets strangers in.
SETTINGS = {
    "version": ("version", False),
    "edition": ("edition", False),
    "tier": ("tier", False),
    "availability": ("availability", True),
    "region": ("region", True),
    "disk_grows": ("growing disk", True),
    "backups": ("daily backups", True),
    "retained": ("backups kept", False),
    "point_in_time": ("point-in-time recovery", True),
    "log_days": ("days of WAL kept", False),
    "insights": ("query insights", False),
    "maintenance": ("maintenance window", False),
    "protected": ("deletion protection", True),
    "public_address": ("public address", True),
    "ssl_mode": ("TLS mode", True),
}
_DAYS = ("any day", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def drift(wanted: Setups, told: Setups) -> Iterator[Finding]:
    """A finding for each setting that is promised, of the primary and of each replica that is there; then the replicas.

    What is not told is UNKNOWN.
    """
    yield _role(told)
    yield from _settings(wanted.name, wanted.main, told.main, "")
    for name, setup in wanted.replicas.items():
        if name in told.replicas:
            yield from _settings(name, setup, told.replicas[name], f":{name}")
    yield from replicas(set(wanted.replicas), set(told.replicas))
    yield _dr_replica(wanted, told)


def _role(told: Setups) -> Finding:
    """After a switchover the promised primary is a replica: then all that follows is of the wrong one."""
    primary = told.main.primary
    note = f"it is a replica of {primary}: name that one in the configuration, or switch back" if primary else ""
    value = None if primary is None else float(bool(primary))
    return Finding(f"{told.name} is no primary", value, "", crit=1, note=note or _untold(value), id="role")


def _settings(name: str, wanted: Setup, told: Setup, place: str) -> Iterator[Finding]:
    for each, (words, is_grave) in SETTINGS.items():
        if (promised := getattr(wanted, each)) is not None:
            yield _compared(words, name, promised, getattr(told, each), is_grave=is_grave, id=f"{each}{place}")
    if wanted.flags is not None:
        yield from flags(name, wanted.flags, told.flags, place)


def flags(
    name: str, wanted: Mapping[str, str], told: Mapping[str, str] | None, place: str = "", *, all_told: bool = True
) -> Iterator[Finding]:
    """A finding for each flag that is promised, and for each that is set beside them where `all_told` says that others
    are not set."""
    if told is None:
        yield Finding(f"flags of {name}", None, note="not told", id=f"flags{place}")
        return
    for flag, value in sorted(wanted.items()):
        found = told.get(flag, "not set" if all_told else None)
        yield _compared(f"flag {flag}", name, value, found, is_grave=False, id=f"flag:{flag}{place}")
    for flag in sorted(set(told) - set(wanted)) if all_told else ():
        note = f"{told[flag]} there, not in service.toml"
        yield Finding(f"flag {flag} of {name} differs", 1.0, "", 1, None, note, id=f"flag:{flag}{place}")


def replicas(wanted: set[str], told: set[str]) -> Iterator[Finding]:
    """Those that are missing, and those that nobody promised."""
    missing, extra = sorted(wanted - told), sorted(told - wanted)
    yield Finding("replicas missing", float(len(missing)), "", crit=1, note=", ".join(missing), id="missing")
    yield Finding("replicas not promised", float(len(extra)), "", 1, None, ", ".join(extra), id="extra")


def _dr_replica(wanted: Setups, told: Setups) -> Finding:
    return _compared(
        "DR replica", wanted.name, wanted.dr_replica or "", told.dr_replica, is_grave=True, id="dr-replica"
    )


def _compared(words: str, name: str, wanted: object, told: object, *, is_grave: bool, id: str) -> Finding:  # noqa: A002
    differs = None if told is None else float(wanted != told)
    note = f"{_shown(told)} there, {_shown(wanted)} in service.toml" if differs else _untold(differs)
    warn, crit = (None, 1) if is_grave else (1, None)
    return Finding(f"{words} of {name} differs", differs, "", warn, crit, note, id=id)


def _untold(value: float | None) -> str:
    return "not told" if value is None else ""


def _shown(value: object) -> str:
    """A setting for people.

    >>> _shown(True), _shown(""), _shown((7, 4)), _shown("REGIONAL")
    ('on', 'none', 'Sunday 04:00 UTC', 'REGIONAL')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return f"{_DAYS[value[0]]} {value[1]:02d}:00 UTC"
    return str(value) or "none"
