"""What the toolkit needs from the world, as Protocols. One file in `adapters/` implements each with one client library.

The in-memory implementations in `tests/` are the proof that these are small.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Protocol

from aiprod_ops.domain.backups import Arrangement, Backup, Origin
from aiprod_ops.domain.catalogue.drift import Migrated
from aiprod_ops.domain.catalogue.indexes import Catalogue
from aiprod_ops.domain.catalogue.inspections import Inspection
from aiprod_ops.domain.catalogue.usage import NodeUsage
from aiprod_ops.domain.counters import StatementsSnapshot
from aiprod_ops.domain.exchanges import Exchange, Outgoing
from aiprod_ops.domain.instances import Setups
from aiprod_ops.domain.schema import Name, Schema, TableSize
from aiprod_ops.domain.statements import Logged, Workload
from aiprod_ops.units import Bytes, Seconds

Values = Mapping[str, object]
Rows = list[dict[str, Any]]
ColumnTexts = tuple[list[tuple[str, float]], list[str]]
Names = Mapping[str, Name | str]


@dataclass(frozen=True, slots=True)
class Server:
    """What a database says of itself. `version` is `server_version_num` (180006); `role` the session's user."""

    system_identifier: str
    version: int
    database: str
    role: str
    is_superuser: bool
    is_standby: bool
    can_write: bool  #: the role could change data if it were let (superuser, or a grant to write some table)


@dataclass(frozen=True, slots=True)
class Sample:
    """One call as the server logged it: the text with its literals, or with `$n` and `parameters` (SQL literals).

    These are users' data: they are measured with, never stored and never shown.
    """

    query_id: int
    text: str
    duration_ms: float
    parameters: tuple[str, ...] = ()


class Database(Protocol):
    """One session with one database. Not safe for two threads, except `cancel`.

    Every method raises Unreachable (no contact), PermissionMissing, TimedOut, Cancelled or Failed.
    """

    def server(self) -> Server:
        """Who answers there."""

    def query(self, sql: str, values: Values = ..., *, names: Names = ..., timeout: Seconds = ...) -> Rows:
        """Rows as dictionaries. `%(name)s` is a value, `{name}` an identifier; the driver quotes both."""

    def execute(self, sql: str, values: Values = ..., *, names: Names = ..., timeout: Seconds = ...) -> None:
        """Run one statement outside a transaction block. A session with the probe identity refuses (Refused)."""

    def hold(self, key: str) -> bool:
        """Take a lock that lives in the server and ends with this session; False when another session has it."""

    def cancel(self) -> None:
        """From another thread: cancel what `query` or `execute` is doing now; it raises Cancelled there."""

    def workload(self) -> Workload:
        """Statements of this database with their figures; what could not be read is in `missing`, never an error."""

    def statements(self) -> StatementsSnapshot:
        """Counters of this database's statements as they are now; what could not be read is in `missing`."""

    def texts(self, query_ids: Sequence[int]) -> dict[int, str]:
        """Normalised texts of these statements, of those that are still counted."""

    def revision(self) -> str:
        """Alembic's revision of the schema, '' where there is none."""

    def schema(self) -> Schema:
        """Tables, columns and indexes of this database, without the system's own."""

    def sizes(self) -> dict[str, TableSize]:
        """Rows, pages and column statistics by table (`str(Name)`)."""

    def column_values(self, columns: Sequence[tuple[Name, str]]) -> dict[tuple[Name, str], ColumnTexts]:
        """Common values with their frequencies, and histogram bounds: users' data, never stored and never shown."""

    def samples(self, query_ids: Sequence[int], most: int = ...) -> list[Sample]:
        """Logged calls of these statements, newest first, at the most `most` each; empty where there is no log."""

    def catalogue(self) -> Catalogue:
        """Indexes, foreign keys, sequences, constraints and collations, and what this role may see of them."""

    def index_usage(self) -> NodeUsage:
        """Scans of the indexes that are not unique, as this node alone counted them: cheap, kept from every check."""

    def bloat(self, indexes: Sequence[Name]) -> Inspection:
        """What pgstatindex counts in these b-trees, one after the other: each is read as a whole."""

    def damage(self, indexes: Sequence[Name], *, rows: bool = ..., timeout: Seconds = ...) -> Inspection:
        """What amcheck finds wrong in these b-trees, one after the other: each is read as a whole. With `rows` its
        table is read, too, to see that the index has each row: without it an index that lacks rows looks sound."""

    def logged(self, query_ids: Sequence[int], since: datetime) -> tuple[dict[int, Logged], str]:
        """What the log tells of these statements since a time, and why it could not be read. Where none is configured,
        and this role may read none, neither."""

    def moment(self) -> AbstractContextManager[None]:
        """Of a session that reads: within it every query sees this moment."""

    def another(self) -> "Database":
        """A second session with the same database and identity, for work side by side. It has to be closed."""

    def close(self) -> None:
        """End the session; locks it holds are released."""


@dataclass(frozen=True, slots=True)
class Restored:
    """How a copy was made: seconds to take and restore it until it answered, its size, the checks it passed, in words.

    Of one that was restored from a stored backup `backup` is its id, and `phases` are the seconds of each step; `lacks`
    says why it could not be taken further than the backup's own end, although WAL was to be kept. Of one that was taken
    to a moment the last check says what was reached. `until` is the moment that it is of, where no WAL here tells how
    far it was taken.
    """

    name: str
    seconds: Seconds
    size: Bytes
    checks: tuple[str, ...]
    backup: str = ""
    phases: Mapping[str, Seconds] = field(default_factory=dict)
    lacks: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Migrations:
    """An Alembic versions folder, and what of the target its revisions may rest on: names, nothing else.

    `extensions` maps those of the target to their schemas. A migration may depend on the `day`, too, and what it makes
    on the `major` version of the target's server: one is taken for the scratch server where it is there.
    """

    folder: str
    database: str
    search_path: tuple[str, ...]
    roles: tuple[str, ...]
    extensions: Mapping[str, str]
    day: date
    major: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What migrations declare, with all that it followed from: `inputs` is a digest, `files` what else was read."""

    inputs: str
    files: dict[str, str]
    migrated: Migrated


class Backups(Protocol):
    """The stored backups of one target. Every method raises Unreachable, PermissionMissing, TimedOut or Failed."""

    def listed(self) -> tuple[Backup, ...]:
        """All that the repository knows of, oldest first: also what runs, and what failed."""

    def arrangement(self) -> Arrangement:
        """How it is set up to act by itself."""

    def take(self, label: str, report: Callable[[str], None] = ...) -> str:
        """Take a full backup and answer its id when it has ended well. It carries the label, by which one that was
        begun is found again; a second call with the same label goes on with that one."""

    def check_writable(self) -> None:
        """Raises PermissionMissing where who we are would spoil the repository for its owner."""

    def in_use(self, backup: str) -> str:
        """Why one cannot be removed now, in words: a restore of ours reads it. '' where none is known to."""

    def remove(self, backup: str) -> None:
        """Throw one away; nothing happens when there is none of that id. Raises Held while it is in use."""

    def reaches(self, segment: str) -> bool | None:
        """Whether this WAL segment is kept, such as `00000002000000000000001A`, or one that comes after it in the same
        history; None where it cannot go by WAL at all, or none is kept: nothing is to be waited for."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is reached; a host that begins with / is a folder of sockets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Endpoint(Protocol):
    """How the application finds the server that takes writes. Every method raises OpsError."""

    def shown(self) -> str:
        """Where it leads now, as HOST:PORT."""

    def lead(self, name: str, place: Place) -> None:
        """Let it lead to another server. Repeatable."""


@dataclass(frozen=True, slots=True)
class NewReplica:
    """A replica that is to be made of a primary; each wait for it to stream takes no longer than `patience`. What is
    empty is as the platform, or the primary, has it."""

    name: str
    primary: str
    patience: Seconds
    tier: str = ""
    region: str = ""
    zone: str = ""

    def __str__(self) -> str:
        return self.name


class Files(Protocol):
    """What tells of servers without asking one. Nothing is known of one that is no member."""

    def is_down(self, name: str) -> bool:
        """Whether nothing of a member lives."""

    def needs(self, name: str) -> Mapping[str, int]:
        """What a standby may not have lower, by the setting's name, as the WAL of its primary told it."""

    def unlike(self, name: str, primary: str, position: int) -> str:
        """What shows that a standby's WAL before a position (bytes since 0/0) is not what the primary has there, in
        words: two that were promoted alike, or one that wrote for a while. '' where nothing does."""


class Cluster(Protocol):
    """A primary and its standbys, as they are moved; members by name. Every method raises OpsError."""

    @property
    def names(self) -> tuple[str, ...]:
        """All members."""

    def place(self, name: str) -> Place:
        """Where a member is reached by applications."""

    def is_standby(self, name: str) -> bool | None:
        """Whether a member is in recovery; None where it does not answer."""

    def is_fenced(self, name: str) -> bool:
        """Whether a member cannot acknowledge a write: nothing of it lives, or it is a standby."""

    def streams(self, name: str, upstream: str) -> bool:
        """Whether a member streams from another now."""

    def lost(self, silent: Sequence[str]) -> str:
        """Which of the members that do not answer was the primary; '' where nobody can tell."""

    def written(self, name: str) -> int | None:
        """How far the WAL of a member that does not answer goes, in bytes since 0/0; None where nobody can tell."""

    def switch_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Exchange the roles of a primary and a standby; nothing that was acknowledged is lost. Repeatable: what was
        begun is finished. Raises Failed where the standby does not come as far in time; then the old one serves
        again."""

    def fail_over(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Promote a standby in the place of a primary that is lost, which is fenced first. Repeatable."""

    def rejoin(self, old: str, new: str, patience: Seconds, report: Callable[[str], None]) -> None:
        """Bring a fenced primary back as a standby. Repeatable."""

    @property
    def files(self) -> Files | None:
        """What the members' files and processes tell; None where they are not here."""

    def against(self, name: str) -> tuple[str, ...]:
        """What the platform has against promoting a standby, in words, each with what mends it."""

    def hinders(self, new: NewReplica) -> tuple[str, ...]:
        """What speaks against making a replica, in words."""

    def maker(self, name: str) -> str | None:
        """The run that made a replica, or has begun to; '' where somebody else did, None where none is there."""

    def add(self, new: NewReplica, run: str, report: Callable[[str], None]) -> None:
        """Make a replica, and wait until it streams. Repeatable: what the same run has begun is gone on with."""

    def needed(self, name: str) -> str:
        """Why a replica may not be removed, in words; '' where nothing speaks against it."""

    def remove(self, name: str, run: str, report: Callable[[str], None]) -> None:
        """Remove a replica that a run made, and nothing else; nothing happens where another did. Raises Refused for
        one that others need by now."""


@dataclass(frozen=True, slots=True)
class Zoned:
    """An instance that runs in a `zone`, and whose platform keeps a server ready in another that takes its disk over:
    nothing that was acknowledged is lost by that."""

    instance: str
    zone: str
    standby: str

    @property
    def swapped(self) -> "Zoned":
        """After the standby took over."""
        return Zoned(self.instance, self.standby, self.zone)

    def __str__(self) -> str:
        return f"{self.instance} to {self.standby}"


class Zones(Protocol):
    """The standby of the target's primary in another zone. Every method raises OpsError."""

    def where(self, instance: str = ...) -> Zoned | None:
        """Where the primary runs, or another instance; None where no standby is kept for it."""

    def fail_over(self, zoned: Zoned, report: Callable[[str], None]) -> None:
        """Let the standby take over. Repeatable: it does nothing where it has."""


class Operations(Protocol):
    """Where a platform tells what it has begun and goes on by itself (a restore of Cloud SQL, say), so that another
    process can wait for its end."""

    def begun(self, what: str, operation: str) -> None:
        """An operation has a name now; durable when this returns. Raises OSError where it cannot be made so."""

    def ended(self, operation: str) -> None:
        """It has ended, well or not."""


class Platform(Protocol):
    """Where instances live, and how a disposable copy of one is made."""

    @property
    def database(self) -> str:
        """The name of the target's database; '' where the configuration names none."""

    @property
    def backups(self) -> Backups:
        """The target's stored backups; raises ConfigurationError where the configuration names none."""

    @property
    def cluster(self) -> Cluster:
        """The target's primary and standbys; raises ConfigurationError where the configuration names none."""

    @property
    def zones(self) -> Zones | None:
        """The standby in another zone; None where the platform keeps none by itself."""

    def setups(self) -> Setups | None:
        """How the target and its replicas are set up, as the platform reports; None where nobody does."""

    def copy(
        self, name: str, report: Callable[[str], None] = ..., origin: Origin | None = ...
    ) -> AbstractContextManager[tuple[Database, Restored]]:
        """Restore the target, or one of its stored backups, into a disposable instance; it is destroyed when the
        context ends.

        Raises Refused when there is no room for it or no way to make one, Failed when the restore is damaged.
        """

    def damage(self, name: str, beside: Sequence[Name] = ...) -> list[str]:
        """What pg_amcheck finds wrong in all heaps and b-trees of the copy of this name, a line each; but for those
        b-trees of the database itself that somebody else looks at."""

    def migrated(self, migrations: Migrations, known: Kept | None, timeout: Seconds) -> Kept:
        """Run the migrations to their head on an empty server of our own; `known` again where nothing has changed.

        Raises Failed (with the revision and its complaint), TimedOut, or ConfigurationError where no server can be had.
        """

    def control(self, name: str) -> Mapping[str, str]:
        """Damage the copy of this name, which is of no use any more, and a spare of the backup it was restored from, as
        far as each can be reached. Answers what looked for that, and in which words it noticed; '' where it did not;
        nothing where no file can be reached."""

    def sweep(self, is_alive: Callable[[str], bool | None]) -> list[str]:
        """Destroy copies whose run is not alive any more; answers their names. Of a run that is not known here (None:
        another machine's) only a copy goes that is older than any run lasts, or whose process is gone."""

    def attach(self, operation: str, report: Callable[[str], None]) -> None:
        """Wait until an operation that another process began has ended, well or not; at once where none goes on
        without its process. Raises TimedOut, Unreachable or OutcomeUnknown while that is not to be seen."""

    def free(self) -> Bytes | None:
        """Free space on the target's data volume; None where nobody can tell."""


class Delivery(Protocol):
    """Where the files that belong to verified runs are wanted: a target's migrations."""

    def check(self) -> None:
        """Raises ConfigurationError where nothing can be put there."""

    def deliver(self, name: str, text: str) -> str:
        """Put a file there; answers its place as evidence tells it. Raises OSError."""

    def withdraw(self, name: str, text: str) -> str:
        """Take back what was delivered, where nothing rests on it yet; answers what became of it, in words."""


class Store(Protocol):
    """Where plans, journals and evidence are kept: never in the patient. Names are relative, `/`-separated."""

    def get(self, name: str) -> bytes | None:
        """The content, or None."""

    def put(self, name: str, data: bytes) -> None:
        """Replace atomically; durable when it returns."""

    def append(self, name: str, data: bytes) -> None:
        """Append; durable when it returns. Raises OSError when it cannot be made durable."""

    def truncate(self, name: str, size: int) -> None:
        """Cut to the first `size` bytes: an unterminated last line is dropped this way."""

    def remove(self, name: str) -> None:
        """Forget a name; nothing happens when there is none."""

    def names(self, prefix: str) -> list[str]:
        """Names below a prefix, sorted."""

    def where(self, name: str) -> str:
        """Where a person finds it: a path or an address."""

    def is_locked(self, name: str) -> bool:
        """Whether somebody holds a name now; nothing is written for that."""

    def lock(self, name: str, holder: str, *, wait: bool = ...) -> AbstractContextManager[int]:
        """Hold a name alone; gives a fencing token that grows with each holder. Raises Held, naming the holder,
        unless it is told to wait.

        The lock ends with the process that holds it, however that ends.
        """


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> datetime:
        """Aware, UTC."""

    def monotonic(self) -> float:
        """Seconds, for stopwatches."""

    def sleep(self, duration: Seconds) -> None:
        """Wait."""


class Sender(Protocol):
    """Sends requests to strangers' URLs, many at a time. It connects to public addresses only, follows no redirect,
    uses no proxy, and ends each request within its time limits."""

    async def send(self, request: Outgoing) -> Exchange:
        """One attempt. Raises nothing that the other side, the network or the URL could cause."""

    async def close(self) -> None:
        """End the connections that are kept."""
