"""A runbook on the bench: the real command line on a real lab, and the problem provoked as often as it is needed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiprod_ops.adapters.local import processes
from aiprod_ops.domain.findings import Status
from aiprod_ops.domain.plans import Draft
from aiprod_ops.domain.runs import Record
from aiprod_ops.engine.evidence import Archive
from aiprod_ops.engine.journal import Journal, runs
from aiprod_ops.engine.operations import new_run, noticed
from aiprod_ops.engine.planning import keep, recompute
from aiprod_ops.engine.proving import prove
from aiprod_ops.engine.registry import Entry
from aiprod_ops.engine.world import World
from aiprod_ops.lab import fleet as fleets
from aiprod_ops.lab import traces
from aiprod_ops.lab.fleet import Fleet
from aiprod_ops.lab.known import KnownLab
from aiprod_ops.units import Seconds

KILLED = -signal.SIGKILL
MOST = 2  #: actions of one plan that are tried: what holds between two of them holds between more
_QUIET = {"AIPROD_OPS_DSN": "", "AIPROD_OPS_ACTOR_DSN": "", "AIPROD_OPS_BACKUP_DSN": "", "NO_COLOR": "1"}
_LONGEST = Seconds(120)  #: of one command; a wait for a dead session is up to 60 s of it


class NotKept(Exception):
    """A promise does not hold; the text says what was seen."""


def require(condition: object, seen: str) -> None:
    """Raise NotKept with what was seen, unless the condition holds."""
    if not condition:
        raise NotKept(seen)


@dataclass
class Bench:
    """A runbook, its options, a lab, and a world to look at it from. `folder` holds configuration and state."""

    lab: KnownLab
    folder: Path
    entry: Entry
    options: tuple[str, ...]
    runbooks: tuple[Path, ...]
    world: World
    params: Any
    _approvable: Draft | None = field(default=None, init=False)

    @property
    def words(self) -> tuple[str, ...]:
        """The runbook as the command line names it, with its options."""
        return (self.entry.id, *self.options)

    @property
    def config(self) -> Path:
        return self.folder / "aiprod-ops.toml"

    @property
    def proves(self) -> bool:
        return "prove" in self.entry.book.phases

    # Commands

    def line(self, *words: str, module: str = "aiprod_ops", config: Path | None = None) -> list[str]:
        """A command line; `words` may begin with what the module takes before the command."""
        folders = [part for folder in self.runbooks for part in ("--runbooks", str(folder))]
        return [sys.executable, "-P", "-m", module, *words, "--config", str(config or self.config), *folders]

    def call(
        self, *words: str, env: Mapping[str, str] | None = None, config: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, without a terminal."""
        return processes.run(
            self.line(*words, config=config), cwd=self.folder, env={**_QUIET, **(env or {})}, timeout=_LONGEST
        )

    def crash(self, moment: str, record: int, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command that is killed at a record of its journal; see `aiprod_ops.cli.crash`."""
        line = self.line(moment, str(record), *words, module="aiprod_ops.cli.crash")
        return processes.run(line, cwd=self.folder, env=_QUIET, timeout=_LONGEST)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Begin a command, to be killed or waited for."""
        return subprocess.Popen(
            self.line(*words), cwd=self.folder, env={**os.environ, **_QUIET}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def applying(self, draft: Draft) -> tuple[str, ...]:
        """The words that apply a plan."""
        severe = ("--confirm", self.world.context.target.name) if self.entry.book.risk == "severe" else ()
        return ("run", self.entry.id, "--apply", draft.digest, *severe, "-o", "json")

    def expect(self, code: int, *words: str, **more: Any) -> str:
        """Run a command that has to end with this code; its stdout."""
        done = self.call(*words, **more)
        require(done.returncode == code, f"`{' '.join(words[:3])}` ended {done.returncode}, not {code}: {said(done)}")
        return done.stdout

    # The problem

    @contextmanager
    def provoked(self) -> Iterator[None]:
        """The problem, where the runbook knows how to provoke it."""
        inject = self.entry.book.phases.get("inject")
        with inject(self.lab, self.params) if inject else nullcontext():
            yield

    @contextmanager
    def problem(self) -> Iterator[Draft]:
        """The problem, and a plan against it that only waits for its approval: proven, where the runbook proves."""
        with self.provoked():
            known = self._approvable
            if known is None or recompute(self.entry, self.world.context, self.params, known).digest != known.digest:
                known = self._approvable = self._plan()
            yield known

    def _plan(self) -> Draft:
        made = noticed(self.world, self.entry, self.params)
        few = made.plan.excluding([action.name for action in made.plan.actions[MOST:]])
        made = replace(made, plan=few, digest=few.digest)
        keep(self.world.store, made)
        if not self.proves:
            return made
        proven = prove(self.world, self.entry, self.params, made, new_run(self.world.context.clock, self.entry.id))
        if proven.draft is None:
            raise NotKept(f"the copy refuses the plan, so nothing can be applied: {proven.proof.refused}")
        return proven.draft

    # What can be seen

    def journal(self, run: str) -> list[Record]:
        return Journal.of(self.world.store, self.world.context.clock, run).records

    def runs(self, kind: str = "run") -> list[str]:
        """Runs of a kind, oldest first. One that begins just now may have no record yet."""
        found = [Journal(self.world.store, self.world.context.clock, run) for run in runs(self.world.store)]
        return [each.run for each in found if each.records and each.opening["kind"] == kind]

    def acts(self) -> "Counter[str]":
        """What the actor has done until now, by statement."""
        return traces.acts(self.lab, "aiprod_actor")

    def require_same(self, before: traces.Look, after: str, *, worked: bool = False, restored: bool = False) -> None:
        """Nothing on the server has changed since. `worked`: but for what the lab's application did meanwhile;
        `restored`: an index that came back is in another file."""
        but = (*(("rows written", "statistics") if worked else ()), *(("files of indexes",) if restored else ()))
        changes = before.changes(traces.look(self.lab), but)
        require(not changes, f"{after} changed {'; '.join(changes)}")

    def require_undone(self, draft: Draft, after: str) -> None:
        """The facts give the same plan as before."""
        now = recompute(self.entry, self.world.context, self.params, draft)
        require(
            now.digest == draft.digest, f"after {after} the plan is {now.digest[:12]}, before it {draft.digest[:12]}"
        )

    def require_done(self, draft: Draft, run: str) -> None:
        """The end state is right: verified, nothing left to plan, each step done once, sealed once, nothing behind."""
        context = self.world.context
        findings = self.entry.book.phases["verify"](context, draft.plan, self.params)
        bad = [f.metric for f in findings if f.status in (Status.CRITICAL, Status.UNKNOWN)]
        require(not bad, f"verify says after {run}: {', '.join(bad)}")
        left = recompute(self.entry, context, self.params, draft).actions
        require(not left, f"still planned after {run}: {', '.join(action.name for action in left)}")
        outcomes = Counter(record.data["step"] for record in self.journal(run) if record.kind == "outcome")
        require(outcomes == Counter(range(len(draft.plan.actions))), f"outcomes by step of {run}: {dict(outcomes)}")
        archive = Archive(self.world.store)
        require(not archive.faults(), f"the evidence after {run}: {'; '.join(archive.faults())}")
        sealed = archive.bodies(run=run)
        require([record.body["exit"] for record in sealed] == [0], f"{run} is sealed {len(sealed)} times")
        self.require_clean(run)

    def require_clean(self, run: str, patience: Seconds = Seconds(10)) -> None:
        """No session, INVALID index, copy or process of a copy stays; a dead session may take a moment to end."""
        deadline = time.monotonic() + patience
        while left := [*traces.remains(self.lab), *self._copies()]:
            require(time.monotonic() < deadline, f"left behind by {run}: {', '.join(left)}")
            time.sleep(0.1)

    def _copies(self) -> list[str]:
        place = self.lab.folder / "copies"
        return [f"copy {path.name}" for path in place.iterdir()] + [f"process {p.pid}" for p in processes.below(place)]


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command said, in one line."""
    return " ".join(f"{done.stderr} {done.stdout}".split())[-300:]


@contextmanager
def configured(fleet: Fleet) -> Iterator[Path]:
    """A folder in the lab's with a configuration and state of its own: a lab's evidence is not ours to fill."""
    with tempfile.TemporaryDirectory(prefix="conform-", dir=fleet.folder) as name:
        write_config(Path(name) / "aiprod-ops.toml", Path(name) / "state", fleet)
        yield Path(name)


def write_config(path: Path, state: Path, fleet: Fleet, **other: str) -> None:
    """The lab's configuration with another state folder and, where given, other values."""
    target = tomllib.loads(fleets.configuration(fleet))["targets"]["lab"] | other
    servers = target.pop("servers", {})
    lines = [f"state = {json.dumps(str(state))}", "[targets.lab]", *_lines(target)]
    for name, values in servers.items():
        lines += [f"[targets.lab.servers.{name}]", *_lines(values)]
    path.write_text("\n".join(lines) + "\n")


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {json.dumps(value)}" for name, value in values.items()]
