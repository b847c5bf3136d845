"""`digest`: what the statements in a server's log cost."""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING

import click

from aiprod_ops.cli import options
from aiprod_ops.cli.options import Where

if TYPE_CHECKING:
    from aiprod_ops.adapters.log_files import Reads
    from aiprod_ops.logs.digester import Wanted
    from aiprod_ops.logs.digests import Digest, Row

_FORMATS = ("auto", "stderr", "csvlog", "jsonlog", "cloud")
_ORDERS = ("total", "mean", "calls", "max", "p95", "p99", "temp")
_PAUSE_S = 0.5  # between two looks at a log that grows
_REFRESH_S = 2.0  # between two tables on a terminal


def _moment(_ctx: click.Context, _param: click.Parameter, value: str) -> datetime | None:
    if not value:
        return None
    try:
        told = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not a time such as '2026-11-22 10:00' or '2026-11-22T10:00+01:00'"
        ) from error
    return told if told.tzinfo else told.replace(tzinfo=UTC)


@click.command("digest")
@click.argument("files", nargs=-1, metavar="[FILE|FOLDER|-]...")
@click.option(
    "--format", "kind", type=click.Choice(_FORMATS), default="auto", show_default=True, help="How it is written."
)
@click.option(
    "--prefix", default="", metavar="TEXT", help="log_line_prefix as the server has it, if it is not told right."
)
@click.option("--database", default="", metavar="NAME", help="Only calls on this database.")
@click.option(
    "--since", default="", callback=_moment, metavar="TIME", help="Only calls from then on; UTC without a zone."
)
@click.option("--until", default="", callback=_moment, metavar="TIME", help="Only calls before then.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="How many statements to show.")
@click.option(
    "--by", type=click.Choice(_ORDERS), default="total", show_default=True, help="What puts a statement first."
)
@click.option("--follow", is_flag=True, help="Go on reading, also where the log is rotated, until Ctrl-C.")
@click.option(
    "--plans", is_flag=True, help="Show the plan of each statement's slowest call, where auto_explain logged it."
)
@click.option("--show-parameters", is_flag=True, help="Show values too: they are users' data.")
@options.output("text", "json")
@options.where
def digest_command(
    files: tuple[str, ...], kind: str, prefix: str, database: str, since: datetime | None, until: datetime | None,
    top: int, by: str, follow: bool, plans: bool, show_parameters: bool, output: str, where: Where,
) -> int:  # fmt: skip
    """Add up a PostgreSQL log by statement: calls, total, mean, quantiles, first and last seen.

    Reads stderr, csvlog, jsonlog and exports of Cloud Logging, plain, gzip or zstd; `-` is standard input. Without a
    file: the target's log. No value of a user is shown unless --show-parameters is given. A log without a single call
    is an error that says why.
    """
    from aiprod_ops.adapters.log_files import Reads
    from aiprod_ops.logs.digester import Wanted

    places = files or (_log_of(where),)
    wanted, reads = Wanted(database, since, until), Reads(kind, prefix)
    printed = _Printed(top, by, output, plans=plans, values=show_parameters)
    printed.show(_followed(places, wanted, reads, printed) if follow else _digest(places, wanted, reads))
    return 0


def _log_of(where: Where) -> str:
    from aiprod_ops.cli.world import settings_of, target_of
    from aiprod_ops.errors import UsageError

    target = target_of(settings_of(where), where)
    if not target.log:
        raise UsageError(
            f"no FILE is given, and target {target.name!r} has no `log`", hint="aiprod-ops digest FILE, or - for stdin"
        )
    return target.log


def _digest(places: Sequence[str], wanted: "Wanted", reads: "Reads") -> "Digest":
    from aiprod_ops.adapters.log_files import digest_of

    return digest_of(places, wanted, reads)


def _followed(places: Sequence[str], wanted: "Wanted", reads: "Reads", printed: "_Printed") -> "Digest":
    """Read on until Ctrl-C, and show now and then what there is, if somebody looks."""
    from aiprod_ops.adapters.log_files import STDIN, Following
    from aiprod_ops.errors import UsageError

    if len(places) != 1 or places[0] == STDIN:
        raise UsageError("--follow reads one file or folder", hint="name one, without the rotated ones")
    following = Following(Path(places[0]), wanted, reads)
    if not Path(places[0]).exists():
        click.echo(f"waiting for {places[0]}, which is not there yet", err=True)
    shown = time.monotonic()
    with _asked_to_end() as asked:
        while not asked.is_set():
            if not following.read():
                asked.wait(_PAUSE_S)
            if sys.stdout.isatty() and printed.output == "text" and time.monotonic() - shown >= _REFRESH_S:
                shown = time.monotonic()
                click.clear()
                printed.show(following.digest())
        while following.read():  # what was written meanwhile
            pass
    return following.end()


@contextmanager
def _asked_to_end() -> Iterator[Event]:
    """Set by the first Ctrl-C: an exception in the middle of a block would lose what is in it. The second raises."""
    asked = Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # a job in the background of a shell is not meant by Ctrl-C
        signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class _Printed:
    """How a digest is shown."""

    def __init__(self, top: int, by: str, output: str, *, plans: bool, values: bool) -> None:
        self.output = output
        self._top, self._by, self._plans, self._values = top, by, plans, values

    def show(self, digest: "Digest") -> None:
        from aiprod_ops.cli import render

        shown = digest if self._values else digest.without_values()
        top = shown.first_of(self._rank, self._top)
        if self.output == "json":
            render.as_json(_data(top, len(shown.rows)))
            return
        for line in _lines(top, len(shown.rows)):
            render.say(line)
        for number, row in enumerate(top.rows, start=1):
            for line in _further(row, number, plans=self._plans, values=self._values):
                render.say(line)

    def _rank(self, row: "Row") -> tuple[float, int]:
        value = row.temporary_bytes if self._by == "temp" else getattr(row, self._by)
        return (-value, row.query_id)


def _data(digest: "Digest", statements: int) -> dict[str, object]:
    import msgspec

    told: dict[str, object] = msgspec.to_builtins(digest)
    return {**told, "statements": statements, "window": digest.window}


def _lines(digest: "Digest", statements: int) -> list[str]:
    from aiprod_ops.cli.render import table
    from aiprod_ops.logs.digests import counted
    from aiprod_ops.units import show

    window = f"{_time(digest.first)} to {_time(digest.last)} UTC" if digest.first else "nothing yet"
    unread = f", {show(digest.unread / digest.size, 'ratio')} of it unread" if digest.unread else ""
    lines = [
        f"{counted(digest.calls, 'call')} of {counted(statements, 'statement')}, {show(digest.total, 'ms')} in all",
        f"{window} ({show(digest.window, 's')}), {show(digest.size, 'B')} read{unread}",
        *(f"note: {note}" for note in digest.notes),
        "",
        *(f"  {line}" for line in table(_table(digest), widest=54)),
    ]
    if digest.others_calls:
        lines += ["", f"  others: {counted(digest.others_calls, 'call')}, {show(digest.others_total, 'ms')}"]
    return [*lines, "", *(f"  {line}" for line in table(_applications(digest)))]


def _table(digest: "Digest") -> list[dict[str, str]]:
    from aiprod_ops.units import show

    spills = any(row.temporary_files for row in digest.rows)
    prepares = any(row.prepared for row in digest.rows)
    return [
        {
            "#": str(number),
            "statement": row.text,
            "calls": f"{row.calls:,}",
            **({"prepared": f"{row.prepared:,}"} if prepares else {}),
            "total": show(row.total, "ms"),
            "share": show(row.total / digest.total if digest.total else 0.0, "ratio"),
            **{name: show(getattr(row, name), "ms") for name in ("mean", "p50", "p95", "p99", "max")},
            **({"temp": show(row.temporary_bytes, "B")} if spills else {}),
            "first": _time(row.first),
            "last": _time(row.last),
        }
        for number, row in enumerate(digest.rows, start=1)
    ]


def _applications(digest: "Digest") -> list[dict[str, str]]:
    from aiprod_ops.units import show

    return [
        {
            "application": one.name or "(unnamed)",
            "calls": f"{one.calls:,}",
            "prepared by name": f"{one.prepared:,}",
            "total": show(one.total, "ms"),
        }
        for one in digest.applications[:10]
    ]


def _further(row: "Row", number: int, *, plans: bool, values: bool) -> list[str]:
    from aiprod_ops.units import show

    lines: list[str] = []
    if plans and row.plan:
        lines += ["", f"  {number}. plan of the slowest call that logged one", *_indented(row.plan)]
    if values and row.examples:
        lines += ["", f"  {number}. calls with their values"]
        for one in row.examples:
            given = "  with " + ", ".join(one.parameters) if one.parameters else ""
            lines.append(f"     {one.kind:<6}  {show(one.duration, 'ms')}  {' '.join(one.text.split())}{given}")
    return lines


def _indented(text: str) -> list[str]:
    return [f"     {line}" for line in text.splitlines()]


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "–"
