"""Who is the primary: failover, switchover, promoteReplica.

`failover` of a REGIONAL instance is what it is at Google: the standby takes over the same disk, which was written in
both zones. Here the server is stopped as by a crash, started again on the same files, and the zones change places.
Nothing committed is lost, sessions end. The other two move the primary's role to another server.
"""

from collections.abc import Sequence

from aiprod_ops.lab.cloudsql import settings
from aiprod_ops.lab.cloudsql.context import Context, Handler, Json, Request
from aiprod_ops.lab.cloudsql.ledger import Instance, Operation, replicas
from aiprod_ops.lab.cloudsql.provisioning import restart
from aiprod_ops.lab.cloudsql.refusals import not_valid_here, stale
from aiprod_ops.units import Seconds

DB_TIMEOUT = Seconds(600)  #: Google's default of `dbTimeout`


class Roles:
    """The calls that move the primary."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def handlers(self) -> dict[str, Handler]:
        return {
            "sql.instances.failover": self._failover,
            "sql.instances.switchover": self._switchover,
            "sql.instances.promoteReplica": self._promote,
        }

    def _failover(self, request: Request) -> Json:
        with self._context.ledger.alone():
            instance = self._context.instance(request.path["instance"])
            version = (request.body.get("failoverContext") or {}).get("settingsVersion")
            if version is not None and int(version) != instance.settings_version:
                raise stale()
            if instance.settings["availabilityType"] != "REGIONAL":
                raise not_valid_here("It is not REGIONAL.")
            self._context.operations.check(instance.name)
            operation = self._context.operations.begin(
                "FAILOVER", instance.name, (instance.name,), lambda: self._move(instance)
            )
        return self._context.answer(operation)

    def _move(self, instance: Instance) -> None:
        restart(self._context, instance, "immediate")
        self._context.change(instance.name, zone=instance.secondary_zone, secondary_zone=instance.zone)

    def _switchover(self, request: Request) -> Json:
        timeout = Seconds(float(request.query.get("dbTimeout", f"{DB_TIMEOUT}s").removesuffix("s")))
        with self._context.ledger.alone():
            replica, primary = self._designated(request)
            siblings = self._siblings(primary, replica)
            touches = (primary.name, replica.name, *(each.name for each in siblings))
            self._context.operations.check(*touches)
            operation = self._context.operations.begin(
                "SWITCHOVER", replica.name, touches, lambda: self._switch(primary, replica, siblings, timeout)
            )
        return self._context.answer(operation)

    def _switch(self, primary: Instance, replica: Instance, siblings: list[Instance], timeout: Seconds) -> None:
        self._context.replication.switch(primary, replica, siblings, timeout)
        self._exchange(primary, replica, siblings)

    def _exchange(
        self,
        primary: Instance,
        replica: Instance,
        siblings: list[Instance],
        *,
        is_clean: bool = True,
        ahead: Sequence[Instance] = (),
    ) -> None:
        """Write the new roles down as soon as they hold, then bring the others back, but for an old primary that its
        owner has stopped: that one comes back as a replica when it is started."""
        old, new = self._write_down(primary, replica, siblings)
        for each in ahead:
            self._context.replication.rejoin(each, new, is_clean=False)
        if not settings.is_stopped(old.settings):
            self._context.replication.rejoin(old, new, is_clean=is_clean)

    def _write_down(self, primary: Instance, replica: Instance, siblings: list[Instance]) -> tuple[Instance, Instance]:
        servers, change = self._context.servers, self._context.change
        with self._context.ledger.alone():
            plans = {each: self._context.ledger.now.instances[each].settings for each in (primary.name, replica.name)}
            backed_up, not_backed_up = settings.exchanged(plans[primary.name], plans[replica.name])
            new = change(replica.name, primary="", dr_replica=primary.name, settings=backed_up)
            for each in siblings:
                change(each.name, primary=replica.name)
            renewed = servers.renewed(primary)
            old = change(primary.name, primary=replica.name, dr_replica="", settings=not_backed_up, **renewed)
        return old, new

    def _promote(self, request: Request) -> Json:
        with self._context.ledger.alone():
            if request.query.get("failover") == "true":
                replica, primary = self._designated(request)
                siblings = self._siblings(primary, replica)
            else:
                replica, siblings = self._replica(request), []
                primary = self._context.ledger.now.instances[replica.primary]
            is_failover = request.query.get("failover") == "true"
            touches = (replica.name, primary.name, *(each.name for each in siblings))
            self._context.operations.check(*touches)
            operation = self._context.operations.begin(
                "PROMOTE_REPLICA",
                replica.name,
                touches,
                lambda: (
                    self._take_over(primary, replica, siblings) if is_failover else self._set_free(primary, replica)
                ),
            )
        return self._context.answer(operation)

    def _take_over(self, primary: Instance, replica: Instance, siblings: list[Instance]) -> None:
        ahead = self._context.replication.take_over(primary, replica, siblings)
        self._exchange(primary, replica, siblings, is_clean=False, ahead=ahead)

    def _set_free(self, primary: Instance, replica: Instance) -> None:
        self._context.replication.promote(replica)
        self._write_free(primary, replica)
        self._context.replication.detach(replica, primary)

    def _write_free(self, primary: Instance, replica: Instance) -> None:
        self._context.change(replica.name, primary="")
        if primary.dr_replica == replica.name:
            self._context.change(primary.name, dr_replica="")

    def recover(self, lost: Operation) -> None:
        """After the emulator was killed in the middle: the servers' files tell how far it came, and the rest is done.

        A replica loses its `standby.signal` when it is promoted. Never are there two primaries of one history.
        """
        if lost.type not in ("SWITCHOVER", "PROMOTE_REPLICA"):
            return
        known, context = self._context.ledger.now.instances, self._context
        replica = known[lost.target]
        if replica.primary and not context.servers.follows(replica):
            primary = known[replica.primary]
            if lost.type == "SWITCHOVER" or not context.servers.of(primary).is_running():
                self._write_down(primary, replica, self._siblings(primary, replica))
            else:
                self._write_free(primary, replica)
        group = [context.ledger.now.instances[name] for name in lost.touches]
        for instance in (each for each in group if not each.primary):
            if not context.servers.of(instance).is_running():
                context.servers.of(instance).start(timeout=Seconds(600))
            context.servers.make_room(instance)
            context.servers.configure(instance)
            context.servers.reload(instance)
        for instance in (each for each in group if each.primary):
            upstream = context.ledger.now.instances[instance.primary]
            if settings.is_stopped(instance.settings):
                continue
            if context.servers.follows(instance):
                context.servers.follow(instance, upstream)
            else:
                context.replication.rejoin(instance, upstream, is_clean=False)

    def _replica(self, request: Request) -> Instance:
        replica = self._context.instance(request.path["instance"])
        if not replica.primary:
            raise not_valid_here("It is not a replica.")
        return replica

    def _designated(self, request: Request) -> tuple[Instance, Instance]:
        """The replica that a request names, and its primary, which has designated it for this."""
        replica = self._replica(request)
        primary = self._context.ledger.now.instances[replica.primary]
        if primary.dr_replica != replica.name:
            raise not_valid_here("It is not the designated DR replica of its primary.")
        return replica, primary

    def _siblings(self, primary: Instance, replica: Instance) -> list[Instance]:
        return [each for each in replicas(self._context.ledger.now, primary.name) if each.name != replica.name]
