"""The document for people with a browser: Swagger UI from files of our own, so that nobody else's server is asked."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from aiprod_ops.errors import ConfigurationError

URL = "/docs"
_FILES = f"{URL}/files"


def add_pages(app: FastAPI) -> None:
    """Serve the page and its files."""
    app.mount(_FILES, StaticFiles(directory=_folder()), name="docs-files")

    @app.get(URL, include_in_schema=False)
    async def show_document() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title=app.title,
            swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{_FILES}/favicon.png",
        )


def _folder() -> Path:
    # Its own code is not needed: it would make the application in our place.
    found = find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ConfigurationError("the API's pages lack Swagger UI", hint="pip install 'aiprod-ops[service]'")
    return Path(found.origin).parent / "static"
