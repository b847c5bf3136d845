"""The Cloud SQL Admin API, `sqladmin` v1, through Google's own client: the one place that imports it.

The discovery document ships with the client, so that neither import nor construction needs a network. The import takes
0.4 s and happens at the first call.

Reads are tried again on 5xx, 429 and lost connections. Nothing that changes something is ever sent twice: when its
answer is lost, `waiting.find` tells whether it was begun.
Source: https://cloud.google.com/sql/docs/postgres/admin-api/rest/v1
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from functools import cached_property
from typing import Any

from aiprod_ops.adapters.cloudsql import failures
from aiprod_ops.adapters.cloudsql.failures import Call
from aiprod_ops.adapters.cloudsql.requests import NewInstance, Settings
from aiprod_ops.adapters.cloudsql.values import BackupRun, Instance, Operation, RecoveryWindow, moment, timestamp
from aiprod_ops.errors import Failed, Refused, TimedOut, Unreachable
from aiprod_ops.units import Seconds

SCOPE = "https://www.googleapis.com/auth/sqlservice.admin"
GOOGLE = "https://sqladmin.googleapis.com/"
READS = 2  #: times that a read is tried again, after up to 2 and 4 s (`num_retries`)


class CloudSqlAdmin:
    """The instances of one project. Safe for threads: each call has a connection of its own.

    `endpoint` is Google's unless it is said. Plain HTTP on loopback is a lab's, which asks for no credentials; else
    they are those given, or application-default ones, loaded at the first call. With `writes=False` every method that
    changes something raises Refused, before anything is sent. `timeout` is for each wait on the socket.

    Every method raises PermissionMissing, Missing, Held (an operation is in progress), Stale, Throttled, Failed,
    Unreachable, TimedOut, OutcomeUnknown (sent, and not answered), or ConfigurationError (no credentials).
    """

    def __init__(
        self,
        project: str,
        *,
        endpoint: str = "",
        timeout: Seconds = Seconds(60),
        credentials: Any = None,
        writes: bool = True,
        reads: int = READS,
    ) -> None:
        self.project = project
        self.endpoint = endpoint or GOOGLE
        self._timeout = timeout
        self._given = credentials
        self._writes = writes
        self._reads = reads

    # Instances

    def instance(self, name: str) -> Instance:
        """One instance. Raises Missing, or PermissionMissing where Google does not say which it is."""
        return Instance.of(self._read("instances.get", f"instance {name}", instance=name))

    def instances(self, condition: str = "") -> tuple[Instance, ...]:
        """All instances, or those of a condition in Google's words (`settings.userLabels.owner:aiprod-ops`)."""
        named = {"filter": condition} if condition else {}
        return tuple(map(Instance.of, self._list("instances.list", "all instances", **named)))

    def find(self, name: str) -> Instance | None:
        """One instance, or None when there is surely none: a list tells it, where a get answers 403 or 404."""
        return next((each for each in self.instances(f"name:{name}") if each.name == name), None)

    def insert(self, new: NewInstance) -> Operation:
        """Make an instance: CREATE, or CREATE_REPLICA, whose target is the primary."""
        return self._change("instances.insert", new.name, new.primary, body=new.body())

    def patch(
        self, name: str, settings: Settings, *, dr_replica: str | None = None, settings_version: int | None = None
    ) -> Operation:
        """Change what is named. With a version, Google refuses (Stale) when the settings were changed meanwhile.

        `dr_replica` designates the replica that a switchover may go to; an empty one takes that away.
        """
        changed = settings.body()
        if settings_version is not None:
            changed["settingsVersion"] = str(settings_version)
        body: dict[str, Any] = {"settings": changed} if changed else {}
        if dr_replica is not None:
            body["replicationCluster"] = {"failoverDrReplicaName": dr_replica}
        return self._change("instances.patch", name, instance=name, body=body)

    def clone(self, source: str, destination: str, *, at: datetime | None = None, zone: str = "") -> Operation:
        """Make a new instance from another, as it is now or as it was. It inherits labels and deletion protection."""
        context = {"kind": "sql#cloneContext", "destinationInstanceName": destination}
        context |= {"pointInTime": timestamp(at)} if at else {}
        context |= {"preferredZone": zone} if zone else {}
        return self._change("instances.clone", source, destination, instance=source, body={"cloneContext": context})

    def failover(self, name: str, settings_version: int) -> Operation:
        """Move a REGIONAL instance to its standby. Google restarts it there: sessions end."""
        context = {"kind": "sql#failoverContext", "settingsVersion": str(settings_version)}
        return self._change("instances.failover", name, instance=name, body={"failoverContext": context})

    def switchover(self, replica: str, *, timeout: Seconds | None = None) -> Operation:
        """Exchange the roles of a designated replica and its primary. Without loss, or it fails. Enterprise Plus."""
        named = {"dbTimeout": f"{timeout:g}s"} if timeout else {}
        return self._change("instances.switchover", replica, instance=replica, **named)

    def promote(self, replica: str, *, failover: bool = False) -> Operation:
        """Make a replica an instance of its own; with `failover` in its primary's place, losing what it lacks."""
        return self._change("instances.promoteReplica", replica, instance=replica, failover=failover)

    def restore(self, name: str, backup_id: str, source: str) -> Operation:
        """Overwrite an instance with a backup of `source`. Refused while it has replicas; flags are not restored."""
        context = {"kind": "sql#restoreBackupContext", "backupRunId": backup_id, "instanceId": source}
        body = {"restoreBackupContext": {**context, "project": self.project}}
        return self._change("instances.restoreBackup", name, instance=name, body=body)

    def delete(self, name: str) -> Operation:
        """Delete an instance, and its backups with it. Refused while deletion protection is on."""
        return self._change("instances.delete", name, instance=name)

    def recovery_window(self, name: str) -> RecoveryWindow | None:
        """The times that a clone of an instance can go back to; None before its first backup, when Google refuses."""
        try:
            found = self._read("projects.instances.getLatestRecoveryTime", f"instance {name}", instance=name)
        except Failed:
            return None
        return RecoveryWindow(moment(found.get("earliestRecoveryTime")), moment(found.get("latestRecoveryTime")))

    # Backups

    def backups(self, instance: str) -> tuple[BackupRun, ...]:
        """Backups of an instance, newest first; `-` is all instances, also those in a region that is down."""
        return tuple(map(BackupRun.of, self._list("backupRuns.list", f"instance {instance}", instance=instance)))

    def backup(self, instance: str, backup_id: str) -> BackupRun:
        """One backup."""
        return BackupRun.of(self._read("backupRuns.get", f"instance {instance}", instance=instance, id=backup_id))

    def take_backup(self, instance: str, *, description: str = "", location: str = "") -> Operation:
        """Take one now; the operation has its `backup_id`. Google keeps it until somebody deletes it."""
        named = {"description": description, "location": location}
        body = {"kind": "sql#backupRun", **{name: value for name, value in named.items() if value}}
        return self._change("backupRuns.insert", instance, instance=instance, body=body)

    def delete_backup(self, instance: str, backup_id: str) -> Operation:
        """Delete a backup for good."""
        return self._change("backupRuns.delete", instance, instance=instance, id=backup_id)

    # Operations

    def operation(self, name: str) -> Operation:
        """One operation, by its name alone."""
        return Operation.of(self._read("operations.get", f"operation {name}", operation=name))

    def operations(self, instance: str = "") -> tuple[Operation, ...]:
        """Operations, newest first: of an instance, or of the project."""
        named = {"instance": instance} if instance else {}
        return tuple(map(Operation.of, self._list("operations.list", instance or "all instances", **named)))

    def look(self, operation: str) -> str:
        """The command that shows an operation to a person."""
        if self.endpoint == GOOGLE:
            return f"gcloud sql operations describe {operation} --project={self.project}"
        return f"curl {self.endpoint.rstrip('/')}/v1/projects/{self.project}/operations/{operation}"

    def designation(self, primary: str, replica: str) -> str:
        """The command with which a person designates a DR replica."""
        if self.endpoint == GOOGLE:
            return f"gcloud sql instances patch {primary} --failover-dr-replica-name={replica} --project={self.project}"
        body = f'{{"replicationCluster": {{"failoverDrReplicaName": "{replica}"}}}}'
        url = f"{self.endpoint.rstrip('/')}/v1/projects/{self.project}/instances/{primary}"
        return f"curl -X PATCH -H 'Content-Type: application/json' -d '{body}' {url}"

    def _look(self, instance: str) -> str:
        if self.endpoint == GOOGLE:
            return f"gcloud sql operations list --instance={instance} --project={self.project}"
        return f"curl '{self.endpoint.rstrip('/')}/v1/projects/{self.project}/operations?instance={instance}'"

    # Calls

    def _read(self, method: str, target: str, **named: Any) -> Mapping[str, Any]:
        what = Call(method, f"{target} of project {self.project}", False, self._look(named.get("instance", "")))
        found: Mapping[str, Any] = self._send(what, self._request(method, named), self._reads)
        return found

    def _list(self, method: str, target: str, **named: Any) -> Iterator[Mapping[str, Any]]:
        token: dict[str, Any] = {}
        while True:
            page = self._read(method, target, **named, **token)
            yield from page.get("items", [])
            if not page.get("nextPageToken"):
                return
            token = {"pageToken": page["nextPageToken"]}

    def _change(self, method: str, target: str, listed: str = "", **named: Any) -> Operation:
        """`listed` is the instance that the operation is listed under, where it is another."""
        what = Call(method, f"instance {target} of project {self.project}", True, self._look(listed or target))
        if not self._writes:
            raise Refused(f"{what}: this identity only reads")
        return Operation.of(self._send(what, self._request(method, named), 0))

    def _request(self, method: str, named: dict[str, Any]) -> Any:
        *path, last = method.split(".")
        resource = self._service
        for part in path:
            resource = getattr(resource, part)()
        return getattr(resource, last)(project=self.project, **named)

    def _send(self, call: Call, request: Any, again: int) -> Any:
        import httplib2
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
        from google.auth.exceptions import TimeoutError as LoginTimeout
        from googleapiclient.errors import HttpError

        from aiprod_ops.adapters.cloudsql.transport import exchange

        try:
            with closing(exchange(self._credentials, self.endpoint, self._timeout)) as once:
                return request.execute(http=once, num_retries=again)
        except HttpError as error:
            raise failures.of_status(call, int(error.resp.status), error.content) from error
        except (TransportError, LoginTimeout) as error:
            raise Unreachable(f"{call}: Google's login does not answer; nothing was sent") from error
        except DefaultCredentialsError as error:
            raise failures.of_login(error, is_absent=True) from error
        except GoogleAuthError as error:
            raise failures.of_login(error, is_absent=False) from error
        except TimeoutError as error:
            raise TimedOut(
                f"{call}: no answer from {self.endpoint} within {self._timeout:g} s", hint=call.look
            ) from error
        except (ConnectionRefusedError, httplib2.ServerNotFoundError) as error:
            raise Unreachable(f"{call}: nothing listens at {self.endpoint}; nothing was sent") from error
        except (OSError, httplib2.HttpLib2Error) as error:
            raise failures.no_answer(call, f"{call}: the connection to {self.endpoint} broke ({error})") from error

    @cached_property
    def _service(self) -> Any:
        import httplib2
        from googleapiclient.discovery import build

        options = {"api_endpoint": self.endpoint}
        unused = httplib2.Http()  # each call brings its own
        return build(
            "sqladmin", "v1", http=unused, client_options=options, cache_discovery=False, static_discovery=True
        )

    @cached_property
    def _credentials(self) -> Any:
        import google.auth
        from google.auth.credentials import AnonymousCredentials

        from aiprod_ops.adapters.cloudsql.transport import is_loopback

        if self._given is not None:
            return self._given
        if is_loopback(self.endpoint):
            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        return google.auth.default(scopes=[SCOPE])[0]
