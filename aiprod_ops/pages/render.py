"""The one function that makes the pages. It reads no file, no clock and no environment: same sources, same bytes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jinja2

from aiprod_ops.domain.plans import canonical
from aiprod_ops.engine.playbook import Playbook
from aiprod_ops.engine.registry import Entry
from aiprod_ops.pages import proofs, tables
from aiprod_ops.pages.sources import EXAMPLE, Sources, exit_codes

_OPS = re.compile(r"^```ops\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)
_FOR_ONE = ("runbook.md.j2", "playbook.md.j2")  #: templates of which there is a page for each


@dataclass(frozen=True, slots=True)
class Symptom:
    """One line of the start page: what people see, where to go, and the first command to type."""

    text: str
    page: str
    first: str


def render(sources: Sources) -> dict[str, str]:
    """Every page by its path below the documents' folder, with the files they link to."""
    environment = _environment(sources)
    shared = {"sources": sources, "symptoms": list(symptoms(sources)), "decisions": list(_decisions(sources))}
    pages: dict[str, str] = {}
    for name, text in sources.templates.items():
        if name in _FOR_ONE:
            continue
        is_template = name.endswith(".j2")
        pages[name.removesuffix(".j2")] = environment.get_template(name).render(shared) if is_template else text
    for entry in sources.runbooks.values():
        pages[f"runbooks/{entry.id}.md"] = _runbook(environment, sources, entry)
    for book in sources.playbooks.values():
        pages[f"playbooks/{book.id}.md"] = _playbook(environment, sources, book)
    for record in sources.evidence:
        if record.is_shipped:
            pages[f"evidence/{record.file}"] = canonical(record.sealed).decode() + "\n"
    return pages


def page(sources: Sources, subject: Entry | Playbook) -> str:
    """The page of one runbook or playbook as text for the terminal: without what only MkDocs reads."""
    environment = _environment(sources)
    make = _runbook if isinstance(subject, Entry) else _playbook
    return _FRONT_MATTER.sub("", make(environment, sources, subject))  # type: ignore[arg-type]


def _runbook(environment: jinja2.Environment, sources: Sources, entry: Entry) -> str:
    return environment.get_template("runbook.md.j2").render(
        entry=entry,
        book=entry.book,
        recorded=sources.recorded.get(entry.id, {}),
        claims=proofs.claims(entry, sources.evidence, sources.max_age, sources.now),
        options=tables.options(entry.params, _promised(sources, entry)),
    )


def _playbook(environment: jinja2.Environment, sources: Sources, book: Playbook) -> str:
    used = [sources.runbooks[name] for name in book.runbooks if name in sources.runbooks]
    return environment.get_template("playbook.md.j2").render(book=book, body=commands_as_shell(book.body), used=used)


def commands_as_shell(text: str) -> str:
    """`ops` blocks as `sh` blocks, so that a copied line runs.

    >>> commands_as_shell("```ops\\nruns list\\n```\\n")
    '```sh\\naiprod-ops runs list\\n```\\n'
    """

    def block(found: re.Match[str]) -> str:
        lines = [f"aiprod-ops {line}" if line.strip() else "" for line in found[1].splitlines()]
        return "\n".join(["```sh", *lines, "```"])

    return _OPS.sub(block, text)


def symptoms(sources: Sources) -> Iterator[Symptom]:
    """Playbooks first: who knows only a symptom needs the question before the answer."""
    for book in sources.playbooks.values():
        first = " ".join(book.commands[0].words) if book.commands else f"explain {book.id}"
        yield Symptom(book.symptom, f"playbooks/{book.id}.md", first)
    for entry in sources.runbooks.values():
        yield Symptom(entry.book.symptom, f"runbooks/{entry.id}.md", f"check {entry.id}")


def navigation(sources: Sources) -> list[dict[str, Any]]:
    """The order of the pages, as MkDocs wants it."""
    runbooks = [{entry.id: f"runbooks/{entry.id}.md"} for entry in sources.runbooks.values()]
    playbooks = [{book.symptom: f"playbooks/{book.id}.md"} for book in sources.playbooks.values()]
    reference = [
        {"Commands": "cli.md"},
        {"Digest of a log": "digest.md"},
        {"Scheduled work": "schedule.md"},
        {"Terraform": "terraform.md"},
        {"The API": "api.md"},
        {"Batches": "batches.md"},
        {"The worker": "worker.md"},
        {"Webhooks": "webhooks.md"},
        {"Delivering webhooks": "delivering.md"},
        {"Cache": "cache.md"},
        {"Reads from replicas": "reading.md"},
        {"Limits and costs": "limits.md"},
        {"Cloud SQL emulator": "cloudsql-emulator.md"},
        {"Configuration": "configuration.md"},
        {"Exit codes": "exit-codes.md"},
        {"Evidence": "evidence.md"},
    ]
    decisions = [{title: name} for title, name in _decisions(sources)]
    return [
        {"What do you see?": "index.md"},
        *([{"Playbooks": playbooks}] if playbooks else []),
        {"Runbooks": [{"Moving the primary": "failover.md"}, *runbooks, {"Write your own": "write-your-own.md"}]},
        {"Reference": reference},
        {"Inside": [{"Architecture": "architecture.md"}, {"Decisions": ["decisions/index.md", *decisions]}]},
    ]


def _decisions(sources: Sources) -> Iterator[tuple[str, str]]:
    for name, text in sources.templates.items():
        if name.startswith("decisions/") and name.endswith(".md"):
            yield text.partition("\n")[0].removeprefix("# "), name


def _promised(sources: Sources, entry: Entry) -> dict[str, object]:
    return {param.promise: sources.promises.get(param.promise) for param in entry.params if param.promise}


def _environment(sources: Sources) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(dict(sources.templates)),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 the result is Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["table"] = tables.table
    environment.globals.update(
        claims_of=lambda entry: proofs.claims(entry, sources.evidence, sources.max_age, sources.now),
        gains=proofs.gains,
        line=proofs.line,
        exit_codes=exit_codes,
        example=sources.templates[EXAMPLE].strip(),
    )
    return environment
