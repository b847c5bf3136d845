"""Batches: many jobs in one request, followed and downloaded as one. Somebody else's batch is not there."""

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import StreamingResponse

from aiprod_ops.service.batching import download, storing, videos
from aiprod_ops.service.batching.bodies import reader_of
from aiprod_ops.service.batching.spooled import Spooled, spool
from aiprod_ops.service.http import credentials, ranges
from aiprod_ops.service.http.credentials import Caller
from aiprod_ops.service.http.fields import Id
from aiprod_ops.service.http.pagination import Listing, PageRequest
from aiprod_ops.service.http.problems import MOST_ERRORS, Problem
from aiprod_ops.service.http.requests import (
    JobsCaller,
    OwnedRoute,
    Service,
    TheService,
    Transaction,
    require_scopes,
)
from aiprod_ops.service.limiting.jobs import JobsRefused, admit_batch
from aiprod_ops.service.operations.batch_views import BODY, BatchView
from aiprod_ops.service.operations.views import Page
from aiprod_ops.service.tables import batches
from aiprod_ops.service.validation import Violation
from aiprod_ops.service.working.batches import settle, tell_batch
from aiprod_ops.units import Seconds

router = APIRouter(prefix="/batches", tags=["batches"], route_class=OwnedRoute)
_UNLIMITED = 2**31 - 1


class SpooledRoute(OwnedRoute):
    """An operation whose body is read item by item, after it is known who sends it, and before the transaction."""

    def largest_body(self, service: Service) -> int:
        return service.settings.largest_batch

    def longest(self, service: Service) -> Seconds:
        """Its items are many: what stores them has a time-out of its own."""
        return Seconds(service.settings.longest + storing.LONGEST)

    async def read(self, request: Request) -> None:
        service: Service = request.app.state.service
        reader = reader_of(request.headers.get("content-type", ""))
        async with service.engine.begin() as connection:
            caller = await credentials.authenticate(connection, credentials.presented(request.scope))
        require_scopes(caller, ["jobs"])
        tier = service.tiers.get(caller.tier)
        spooled = await spool(request.stream(), reader, tier.batch_size if tier else _UNLIMITED)
        request.state.spooled, request.state.body_digest = spooled, spooled.digest

    async def done(self, request: Request) -> None:
        if (spooled := getattr(request.state, "spooled", None)) is not None:
            spooled.file.close()


async def submit_batch(
    request: Request,
    response: Response,
    caller: JobsCaller,
    transaction: Transaction,
    service: TheService,
    partial: Annotated[
        bool, Query(description="Accept the items that follow the rules, and tell the others; false: all, or nothing.")
    ] = False,
) -> BatchView:
    """Submit many jobs: a JSON array, JSON lines, or a form with a file of either. Each item is what a single job is
    submitted with. The jobs wait, however many the tier allows at a time."""
    spooled: Spooled = request.state.spooled
    errors = _violations(spooled)
    if not spooled.accepted or (spooled.rejected and not partial):
        raise Problem("VALIDATION_FAILED", _why_refused(spooled), errors=errors)
    await _admit(transaction, service, caller, spooled.accepted)
    told = [{"item": number, **_shown(each)} for number, each in spooled.errors]
    row = await storing.create(transaction, caller.user_id, spooled.rows(), spooled.accepted, spooled.rejected, told)
    return await _created(transaction, row, response)


router.add_api_route(
    "", submit_batch, methods=["POST"], status_code=201, route_class_override=SpooledRoute,
    openapi_extra={"requestBody": BODY},
)  # fmt: skip


@router.get("")
async def list_batches(
    page: Annotated[PageRequest, Query()], caller: JobsCaller, transaction: Transaction, service: TheService
) -> Page[BatchView]:
    """Your batches, newest first."""
    query = select(batches).where(batches.c.user_id == caller.user_id)
    listing = Listing(await service.cursor_secret(transaction), caller.user_id, "batches", {})
    rows, cursor = await listing.part(transaction, query, batches.c.id, page)
    counts = await storing.counts(transaction, [row["id"] for row in rows])
    return Page(items=[BatchView.of(row, counts[row["id"]]) for row in rows], next_cursor=cursor)


@router.get("/{batch_id}")
async def get_batch(batch_id: Id, caller: JobsCaller, transaction: Transaction) -> BatchView:
    """One of your batches: counts, progress, and when it will be done."""
    return await _view(transaction, await owned(transaction, caller, batch_id))


@router.post("/{batch_id}/cancel")
async def cancel_batch(batch_id: Id, caller: JobsCaller, transaction: Transaction) -> BatchView:
    """Cancel the jobs of a batch that have not ended."""
    row = await owned(transaction, caller, batch_id, locks=True)
    if row["completed_at"] is not None:
        raise Problem("BATCH_STATE_CONFLICT", "The batch has ended: nothing is left to cancel.")
    await storing.cancel(transaction, batch_id)
    await settle(transaction, batch_id)
    return await _view(transaction, await owned(transaction, caller, batch_id))


@router.post("/{batch_id}/retry", status_code=201)
async def retry_batch(
    batch_id: Id, caller: JobsCaller, transaction: Transaction, service: TheService, response: Response
) -> BatchView:
    """Submit the jobs that failed once more, as a new batch, whose `retry_of` is this one. This one stays as it is. It
    can be tried again once; what fails then, is tried again from the new one."""
    row = await owned(transaction, caller, batch_id, locks=True)
    failed = (await storing.counts(transaction, [batch_id]))[batch_id].failed
    if row["completed_at"] is None:
        raise Problem("BATCH_NOT_ENDED", "The batch has not ended: wait until each of its jobs has.")
    if not failed:
        raise Problem("BATCH_STATE_CONFLICT", "None of the batch's jobs has failed: nothing is left to try again.")
    if (other := await storing.retried_as(transaction, batch_id)) is not None:
        detail = f"The failed jobs were tried again already, as the batch {other}: follow that one, and try it again."
        raise Problem("BATCH_STATE_CONFLICT", detail)
    await _admit(transaction, service, caller, failed)
    return await _created(
        transaction, await storing.failed_again(transaction, caller.user_id, batch_id, failed), response
    )


_ZIP: dict[str, Any] = {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}


@router.get(
    "/{batch_id}/download",
    response_class=StreamingResponse,
    responses={200: {"description": "The archive.", **_ZIP}, 206: {"description": "A part of it.", **_ZIP}},
)
async def download_batch(
    batch_id: Id,
    caller: JobsCaller,
    transaction: Transaction,
    service: TheService,
    range_: Annotated[str | None, Header(alias="Range", description="`bytes=N-`: go on from there.")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range", description="The ETag of what was begun.")] = None,
) -> StreamingResponse:
    """The videos of a batch that has ended, as a ZIP with `SHA256SUMS`. Broken off, it goes on with Range."""
    row = await owned(transaction, caller, batch_id)
    if row["completed_at"] is None:
        raise Problem("BATCH_NOT_ENDED", "The batch has not ended: wait until each of its jobs has.")
    layout = await download.lay_out(service.engine, batch_id)
    size, tag = layout.size_bytes, f'"{hashlib.sha256(f"{batch_id} {layout}".encode()).hexdigest()[:32]}"'
    part = ranges.asked(range_, if_range, tag, size)
    begin, end = part or (0, size)
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{batch_id}.zip"',
        "Content-Length": str(end - begin),
        "ETag": tag,
    }
    if part is not None:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    content = download.stream(service.engine, batch_id, layout, videos.load(service.settings.videos), begin, end)
    return StreamingResponse(await download.begun(content), 206 if part else 200, headers, "application/zip")


async def owned(transaction: AsyncConnection, caller: Caller, batch_id: str, *, locks: bool = False) -> RowMapping:
    """The row of a batch of the caller's; raises Problem NOT_FOUND, whether there is none or it is somebody else's."""
    query = select(batches).where(batches.c.id == batch_id, batches.c.user_id == caller.user_id)
    row = (await transaction.execute(query.with_for_update() if locks else query)).mappings().one_or_none()
    if row is None:
        raise Problem("NOT_FOUND", "You have no batch with this id.")
    return row


async def _view(transaction: AsyncConnection, row: RowMapping) -> BatchView:
    counts = await storing.counts(transaction, [row["id"]])
    return BatchView.of(row, counts[row["id"]])


async def _created(transaction: AsyncConnection, row: RowMapping, response: Response) -> BatchView:
    view = await _view(transaction, row)
    await tell_batch(transaction, "batch.created", row)
    response.headers["Location"] = f"/api/v1/batches/{row['id']}"
    return view


async def _admit(transaction: AsyncConnection, service: Service, caller: Caller, number: int) -> None:
    if caller.tier not in service.tiers:
        return
    try:
        await admit_batch(transaction, caller.user_id, service.tiers[caller.tier], number, datetime.now(UTC))
    except JobsRefused as error:
        after = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        raise Problem(error.code, error.detail, headers=after) from error


def _violations(spooled: Spooled) -> list[Violation]:
    found = []
    for number, each in spooled.errors:
        values = {name: getattr(each, name) for name in ("rule", "limit", "message", "fix")}
        found.append(Violation(field=f"items.{number}.{each.field}".rstrip("."), **values))
    return found


def _shown(violation: Violation) -> dict[str, Any]:
    return {name: getattr(violation, name) for name in ("field", "rule", "message", "fix")}


def _why_refused(spooled: Spooled) -> str:
    if not spooled.rejected:
        return "The batch has no items, expected at least one."
    more = f" (the first {MOST_ERRORS} errors are told)" if len(spooled.errors) == MOST_ERRORS else ""
    return (
        f"{spooled.rejected:,} of {spooled.accepted + spooled.rejected:,} items do not follow the rules{more}: "
        "nothing was accepted."
    )
