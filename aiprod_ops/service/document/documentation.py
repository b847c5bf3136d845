"""`/api/v1/docs/*`: the sections, every problem, every operation, for programs and for people with curl."""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fastapi import APIRouter, Request

from aiprod_ops.domain.presets import BY_NAME
from aiprod_ops.domain.problems import BY_CODE
from aiprod_ops.service.document import openapi, sections
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.http.requests import PublicRoute
from aiprod_ops.service.operations.submissions import EXAMPLES
from aiprod_ops.service.operations.views import View

router = APIRouter(prefix="/docs", tags=["docs"], route_class=PublicRoute)

if TYPE_CHECKING:
    Code: TypeAlias = str
    PresetName: TypeAlias = str
else:
    Code, PresetName = Literal[tuple(BY_CODE)], Literal[tuple(BY_NAME)]


class SectionLink(View):
    """Where a section is."""

    name: str
    title: str
    url: str


class Section(View):
    """A section of the documentation."""

    name: str
    title: str
    markdown: str


class Explanation(View):
    """A kind of problem. `status` is HTTP's; null where a job fails and no request."""

    code: str
    status: int | None
    title: str
    cause: str
    fix: str
    may_succeed_later: bool


class Endpoint(View):
    """An operation, and its part of the OpenAPI document."""

    name: str
    method: str
    path: str
    summary: str
    operation: dict[str, Any]


class Example(View):
    """A submission that is accepted as it is."""

    preset: str
    title: str
    submission: dict[str, Any]


_PLACES = {"overview": "api/overview"}


@router.get("")
async def list_sections() -> list[SectionLink]:
    """The sections."""
    return [
        SectionLink(name=name, title=title, url=f"/api/v1/docs/{_PLACES.get(name, name)}")
        for name, (title, _) in sections.SECTIONS.items()
    ]


@router.get("/api/overview")
async def get_overview() -> Section:
    """The API in a page."""
    return _section("overview")


@router.get("/pipelines")
async def get_pipeline_guide() -> Section:
    """Presets, stages, and the life of a job."""
    return _section("pipelines")


@router.get("/batches")
async def get_batch_guide() -> Section:
    """Many jobs at once."""
    return _section("batches")


@router.get("/errors")
async def list_errors() -> list[Explanation]:
    """Every code that a request or a job can fail with."""
    return [Explanation.model_validate(sections.explained(kind)) for kind in BY_CODE.values()]


@router.get("/errors/{code}")
async def get_error(code: Code) -> Explanation:
    """One code. Each problem's `type` leads here."""
    return Explanation.model_validate(sections.explained(BY_CODE[code]))


@router.get("/endpoints")
async def list_endpoints(request: Request) -> list[str]:
    """The names of all operations."""
    return [operation["operationId"] for _, _, operation in openapi.operations(request.app.openapi())]


@router.get("/endpoints/{name}")
async def get_endpoint(name: str, request: Request) -> Endpoint:
    """One operation."""
    for path, method, operation in openapi.operations(request.app.openapi()):
        if operation["operationId"] == name:
            summary = operation.get("summary", "")
            return Endpoint(name=name, method=method.upper(), path=path, summary=summary, operation=operation)
    raise Problem("NOT_FOUND", "There is no operation with this name: GET /api/v1/docs/endpoints names them.")


@router.get("/examples/{preset}")
async def get_example(preset: PresetName) -> Example:
    """A submission of a preset, to begin with."""
    return Example(preset=preset, title=BY_NAME[preset].title, submission=EXAMPLES[preset])


def _section(name: str) -> Section:
    title, text = sections.SECTIONS[name]
    return Section(name=name, title=title, markdown=text())
