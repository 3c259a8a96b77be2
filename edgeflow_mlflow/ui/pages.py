"""Serves the tab: its files, a page of its own, and the line that puts it into MLflow's page.

A page of ours gets no rights that it does not need: no script, style or connection but from this server.
"""

from __future__ import annotations

import html
from collections.abc import Collection
from typing import Any

from flask import Blueprint, Flask, Response, current_app, redirect, request

from edgeflow_mlflow import errors
from edgeflow_mlflow.api import identity, origin
from edgeflow_mlflow.ui import bundle

NAME = "edgeflow_ui"
PLACE = "/edgeflow"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_YEAR = "public, max-age=31536000, immutable"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>Edgeflow</title>
<link rel="icon" href="data:,">
<script type="module" src="static/{script}"></script>
</head>
<body>
<noscript>This page needs JavaScript. The command edgeflow shows the same.</noscript>
</body>
</html>
"""


def install(
    app: Flask, *, prefix: str, allowed_hosts: Collection[str], user: identity.UserCheck | None
) -> None:
    """Add the pages to MLflow's Flask app, before its basic-auth adds a guard that knows none of them."""
    blueprint = Blueprint(NAME, __name__, url_prefix=prefix + PLACE)
    for rule, view in (("", _to_the_page), ("/", _page), ("/static/<name>", _asset)):
        blueprint.add_url_rule(
            rule,
            endpoint=view.__name__.strip("_"),
            view_func=view,
            methods=["GET"],
            provide_automatic_options=False,
        )

    def guard() -> Any:
        if request.blueprint != NAME:
            return None
        origin.check_host(request.host, allowed_hosts)
        if user is None:
            return None
        if request.endpoint == f"{NAME}.page":
            try:
                user()  # the browser asks for the name here, and not in the middle of what the page loads
            except errors.UnauthenticatedError as error:
                return Response(
                    str(error), 401, {"WWW-Authenticate": 'Basic realm="mlflow"'}, content_type="text/plain"
                )
        return current_app.ensure_sync(current_app.dispatch_request)()

    app.before_request(guard)
    app.register_blueprint(blueprint)


def line() -> str:
    """What stands in the head of MLflow's page, relative to it as MLflow's own scripts are; empty without a
    bundle."""
    script = bundle.entry(bundle.INJECTED)
    return f'<script type="module" src="edgeflow/static/{html.escape(script)}"></script>' if script else ""


def into(page: str) -> str | None:
    """MLflow's page with our line in its head; None when it is not a page that has one."""
    ours, place = line(), page.find("</head>")
    return page[:place] + ours + page[place:] if ours and place >= 0 else None


def _to_the_page() -> Any:
    return redirect(request.path + "/", 308)


def _page() -> Response:
    script = bundle.entry(bundle.ALONE)
    if not script:
        raise errors.NotFoundError("this installation has no built bundle: run `make ui`")
    response = Response(_PAGE.format(script=html.escape(script)), content_type="text/html; charset=utf-8")
    response.headers["Cache-Control"] = "no-cache"
    return _guarded(response)


def _asset(name: str) -> Response:
    found = bundle.asset(name)
    if found is None:
        raise errors.NotFoundError(f"no file {name[:120]!r} in the bundle")
    is_packed = "gzip" in request.headers.get("Accept-Encoding", "")
    response = Response(found.packed if is_packed else found.plain, content_type=found.media_type)
    if is_packed:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    # The name holds a hash of the bytes.
    response.headers["Cache-Control"] = _YEAR
    return _guarded(response)


def _guarded(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _CSP
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response
