"""The five sections of the API's documentation, as Markdown: made from the same values that the API works by."""

from collections.abc import Callable

from aiprod_ops.domain.jobs import FOLLOWS, Priority
from aiprod_ops.domain.presets import LANGUAGES, PRESETS
from aiprod_ops.domain.problems import OF_JOBS, OF_REQUESTS, Kind


def overview() -> str:
    """The API in a page."""
    return f"""\
Submit a job, look at its status, download the result:

1. `POST /api/v1/jobs` with a preset and a prompt answers 201 and the job's `id`.
2. `GET /api/v1/jobs/{{job_id}}` until `status` is `completed`, `failed` or `cancelled`. Send the `ETag` back as
   `If-None-Match`: while nothing has changed, the answer is 304 and empty.
3. `GET /api/v1/jobs/{{job_id}}/download` leads to the video.

**Keys.** `Authorization: Bearer aiprod_…`. A key has scopes: `jobs`, `webhooks`, `admin`. Rotate it with
`POST /api/v1/keys/{{key_id}}/rotate`: the old one counts until the overlap is over. What is not yours is answered 404.

**Repetitions.** Every POST takes an `Idempotency-Key`: the same key with the same body does the work once in 24 hours.

**Webhooks.** Instead of asking, be told: `POST /api/v1/webhooks` with a URL, and verify what comes with the secret in
the answer (Standard Webhooks). `GET /api/v1/webhooks/{{webhook_id}}/deliveries` tells what was sent and answered.

**Lists** come in parts, newest first: `next_cursor` leads to the next one, and stays right while jobs are added.

**Problems** are `application/problem+json` with a stable `code`; `request_id` finds the request in our logs.

Languages: {", ".join(LANGUAGES)}. Priorities: {", ".join(Priority)}."""


def pipelines() -> str:
    """What happens to a job."""
    rows = "\n".join(
        f"| `{each.name}` | {each.title} | {each.shortest_seconds}–{each.longest_seconds} s | "
        f"{', '.join(each.aspect_ratios)} | {each.longest_prompt:,} |"
        for each in PRESETS
    )
    lives = "\n".join(
        f"| `{status}` | {', '.join(f'`{each}`' for each in sorted(following)) or 'nothing: it has ended'} |"
        for status, following in FOLLOWS.items()
    )
    return f"""\
| Preset | What it is | Duration | Aspect ratios | Prompt, characters |
| --- | --- | --- | --- | --- |
{rows}

A job goes through the stages analysis, storyboard, generation, assembly and quality check:
`GET /api/v1/jobs/{{job_id}}/pipelines` tells where it is, `progress` how far, in percent.

| Status | What may follow |
| --- | --- |
{lives}

A worker that is lost gives its job back: it is queued again, and `attempts` counts. A job can be cancelled until it has
ended; its priority can be changed while it is queued."""


def batches() -> str:
    """Many jobs at once."""
    return """\
1. `POST /api/v1/batches` takes as many jobs as your tier allows: a JSON array (`application/json`), one job a line
   (`application/x-ndjson`), or a form (`multipart/form-data`) with one file of either. Each item is what a single job
   is submitted with.
2. `GET /api/v1/batches/{batch_id}` tells how many are queued, processing, completed, failed and cancelled, the progress
   in percent, and when it will be done. `GET /api/v1/jobs?batch_id=…` lists its jobs.
3. `GET /api/v1/batches/{batch_id}/download` answers all videos as one ZIP when the batch has ended. `SHA256SUMS` in it
   checks them (`sha256sum -c SHA256SUMS`). A download that broke off goes on with `Range: bytes=N-` and `If-Range`.

**All or nothing.** One item that does not follow the rules refuses the batch; `errors` names item and field
(`items.12.prompt`, counted from 1). With `?partial=true` the others are accepted, and `rejected` and `errors` tell the
rest. An array that is broken off is refused in either case: nobody knows what else was in it.

**Your limits.** The jobs of a batch wait: they do not count against the jobs that you may submit singly, and workers
take no more of them at a time than your tier allows. Single jobs go before those of a batch with the same priority.

**Cancel** with `POST …/cancel`. **Try again what failed** with `POST …/retry`: it makes a new batch of the failed jobs,
and this one stays as it is. The events `batch.created` and `batch.completed` tell of a batch as a whole; its jobs have
`job.started`, `job.progress`, `job.completed` and `job.failed`, but no `job.created`."""


def errors() -> str:
    """Every code."""
    answered = "\n".join(f"| `{each.code}` | {each.status} | {each.cause} | {each.fix} |" for each in OF_REQUESTS)
    failed = "\n".join(f"| `{each.code}` | {each.cause} | {each.fix} |" for each in OF_JOBS)
    again = ", ".join(f"`{each.code}`" for each in (*OF_REQUESTS, *OF_JOBS) if each.again)
    return f"""\
A request that fails is answered with one of these, as `application/problem+json`:

| Code | Status | Why | What to do |
| --- | --- | --- | --- |
{answered}

A job that fails has one of these as `failure.code`:

| Code | Why | What to do |
| --- | --- | --- |
{failed}

Unchanged, these may succeed later: {again}."""


def endpoints() -> str:
    """Where each operation is explained."""
    return """\
`GET /api/v1/docs/endpoints` names every operation; `GET /api/v1/docs/endpoints/{name}` answers its part of the OpenAPI
document: parameters, body with examples, answers. The whole document is `GET /api/v1/openapi.json`."""


#: name → title and text, in their order.
SECTIONS: dict[str, tuple[str, Callable[[], str]]] = {
    "overview": ("API overview", overview),
    "pipelines": ("Pipeline processing", pipelines),
    "batches": ("Batch operations", batches),
    "errors": ("Error codes", errors),
    "endpoints": ("Endpoints", endpoints),
}


def as_markdown() -> str:
    """All sections."""
    return "\n\n".join(f"## {title}\n\n{text()}" for title, text in SECTIONS.values())


def explained(kind: Kind) -> dict[str, str | int | bool | None]:
    """One kind of problem, for programs."""
    return {
        "code": kind.code, "status": kind.status, "title": kind.title, "cause": kind.cause, "fix": kind.fix,
        "may_succeed_later": kind.again,
    }  # fmt: skip
