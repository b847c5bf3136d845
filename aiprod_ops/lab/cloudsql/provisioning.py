"""An instance is written down and given its place, restarted, or broken on purpose."""

import re
from pathlib import Path
from typing import Any

from aiprod_ops.lab import ports
from aiprod_ops.lab.cloudsql import settings
from aiprod_ops.lab.cloudsql.context import Context, now
from aiprod_ops.lab.cloudsql.ledger import Instance
from aiprod_ops.lab.cloudsql.refusals import exists, invalid
from aiprod_ops.units import Seconds

NAME = re.compile(r"[a-z]([a-z0-9-]{0,95}[a-z0-9])?")


def new(
    context: Context,
    name: str,
    *,
    version: str,
    region: str,
    made: dict[str, Any],
    password: str,
    kms_key: str = "",
    primary: str = "",
) -> Instance:
    """Write a new instance down, PENDING_CREATE. Raises Refusal when its name or version does not do."""
    state, servers = context.ledger.now, context.servers
    if not NAME.fullmatch(name):
        raise invalid(f"the instance name {name!r} is not made of lower-case letters, digits and hyphens.")
    if name in state.instances:
        raise exists()
    if version != f"POSTGRES_{servers.programs.major}":
        raise invalid(f"databaseVersion: this emulator runs POSTGRES_{servers.programs.major}, not {version!r}.")
    taken = {state.port, *(each.port for each in state.instances.values())}
    zone, second = settings.zones(region, made["locationPreference"]["zone"], made)
    home = servers.home(name)
    instance = Instance(
        name=name,
        version=version,
        region=region,
        zone=zone,
        secondary_zone=second,
        settings=made,
        data=str(home / "data"),
        log=str(home / "server.log"),
        sockets=str(servers.folder / "s"),
        port=ports.free(servers.folder, taken=taken)[0],
        archive=str(home / "archive-0"),
        password=password,
        created=now(),
        slot=name.replace("-", "_")[:63],
        primary=primary,
        kms_key=kms_key,
    )
    context.ledger.put(instance)
    return instance


def restart(context: Context, instance: Instance, mode: str) -> None:
    """Stop a server and start it again."""
    server = context.servers.of(instance)
    server.stop(mode)
    server.start(timeout=Seconds(600))


def spoil(context: Context, instance: Instance) -> None:
    """Break a server so that it does not start, as a copy that the API reports as done may be."""
    context.servers.of(instance).stop("immediate")
    control = Path(instance.data, "global", "pg_control")
    control.write_bytes(bytes(control.stat().st_size))
