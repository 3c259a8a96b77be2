"""The Flask side of the API: from the route table to a blueprint, and the guard in front of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from flask import Blueprint, Flask, Response, current_app, g, request, send_file
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from edgeflow_agent import errors as agent_errors
from edgeflow_agent import typed
from edgeflow_mlflow import errors
from edgeflow_mlflow.api import identity, origin, responses, table
from edgeflow_mlflow.api.routing import PREFIX, Actor, Call, Policy, Raw, Route
from edgeflow_mlflow.catalog import Catalog
from edgeflow_mlflow.services.state import State

NAME = "edgeflow"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass(frozen=True, kw_only=True)
class Access:
    """What MLflow's own authentication says. `user` is None when it is off; the two `sees` functions
    take the user's name."""

    user: identity.UserCheck | None = None
    sees_experiment: Callable[[str, str], bool] = lambda user, experiment: True
    sees_model: Callable[[str, str], bool] = lambda user, model: True


def install(app: Flask, *, prefix: str, state: State, catalog: Catalog, access: Access) -> None:
    """Add the guard and the blueprint to MLflow's Flask app.

    Call it before MLflow's basic-auth adds its own guard: that one refuses every route that it does not
    know, so ours answers for our routes and the later ones are not asked.
    """
    routes = {_endpoint(route): route for route in table.ROUTES}
    allowed = frozenset(state.config["server.allowed_hosts"])
    limit = state.config["limits.json_body_kb"] * 1024

    def guard() -> Any:
        if request.blueprint != NAME:
            return None
        origin.check_host(request.host, allowed)
        request.max_content_length = limit
        if request.content_length is not None and request.content_length > limit:
            raise errors.TooLargeError(f"a body of {request.content_length} bytes is over {limit}")
        has_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
        route = routes.get((request.endpoint or "").removeprefix(f"{NAME}."))
        if route is not None:
            origin.check_change(request.method, request.headers, host=request.host, has_body=has_body)
        g.edgeflow_actor = identity.identify(
            state,
            Policy.PUBLIC if route is None else route.policy,
            request.headers.get("Authorization", ""),
            access.user,
        )
        if access.user is None:
            return None
        return current_app.ensure_sync(current_app.dispatch_request)()

    app.before_request(guard)
    blueprint = Blueprint(NAME, __name__, url_prefix=prefix + PREFIX)
    blueprint.register_error_handler(HTTPException, responses.of_http)
    blueprint.register_error_handler(IntegrityError, responses.of_conflict)
    blueprint.register_error_handler(DataError, responses.of_unstorable)
    for away in (OperationalError, PoolTimeoutError):
        blueprint.register_error_handler(away, responses.of_busy)
    for endpoint, route in routes.items():
        blueprint.add_url_rule(
            route.rule,
            endpoint=endpoint,
            view_func=_view(route, prefix + PREFIX, state, catalog, access),
            methods=[route.method],
            provide_automatic_options=False,
        )
    blueprint.add_url_rule(
        "/<path:rest>",
        endpoint="unknown",
        view_func=_unknown,
        methods=_METHODS,
        provide_automatic_options=False,
    )
    app.register_blueprint(blueprint)
    for kind in (errors.ServerError, agent_errors.ContractError):
        app.register_error_handler(kind, responses.of_error)


def _endpoint(route: Route) -> str:
    return f"{route.method} {route.rule}".replace(".", "_")


def _unknown(rest: str) -> Response:
    allowed = table.allowed_methods("/" + rest)
    if not allowed:
        raise errors.NotFoundError(f"no route {PREFIX}/{rest[:200]}; {PREFIX}/openapi.json lists them all")
    response = Response(
        responses.body("INVALID_PARAMETER_VALUE", f"{request.method} is not possible here"),
        status=405,
        content_type=responses.JSON,
    )
    response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _view(
    route: Route, prefix: str, state: State, catalog: Catalog, access: Access
) -> Callable[..., Response]:
    def view(**path: str) -> Response:
        actor: Actor = g.edgeflow_actor
        for name, value in path.items():
            if len(value) > 256 or not value.isprintable():
                raise errors.NotFoundError(f"{name} is not a name that exists here")
        result = route.handler(
            Call(
                state=state,
                catalog=catalog,
                sees_experiment=lambda item: access.sees_experiment(actor.name, item),
                sees_model=lambda item: access.sees_model(actor.name, item),
                actor=actor,
                prefix=prefix,
                path=path,
                query=_query(route),
                body=_body(route),
                headers=request.headers,
            )
        )
        return _respond(route, result)

    return view


def _query(route: Route) -> Any:
    known = set() if route.query is None else set(route.query.__struct_encode_fields__)
    given = request.args.to_dict(flat=False)
    for name, values in given.items():
        if name not in known:
            hint = f"; it takes {', '.join(sorted(known))}" if known else ""
            raise errors.InvalidError(f"unknown query parameter {name[:80]!r}{hint}")
        if len(values) > 1:
            raise errors.InvalidError(f"query parameter {name!r} was given {len(values)} times")
    if route.query is None:
        return None
    return _convert({name: values[0] for name, values in given.items()}, route.query, "query", strict=False)


def _body(route: Route) -> Any:
    if route.body is None:
        return None
    data = request.get_data(cache=False)
    if not data and route.method == "DELETE":
        return None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.InvalidError(f"the body is not valid JSON: {error}") from error
    return _convert(value, route.body, "body", strict=True)


def _convert(value: Any, kind: Any, what: str, *, strict: bool) -> Any:
    try:
        return typed.convert(kind, value, strict=strict)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise errors.InvalidError(f"the {what} does not fit: {error}") from error


def _respond(route: Route, result: Any) -> Response:
    if not isinstance(result, Raw):
        return Response(msgspec.json.encode(result), status=route.status, content_type=responses.JSON)
    if result.file:
        return send_file(result.file, mimetype=result.media_type, conditional=True, etag=result.etag)
    response = Response(result.body or None, status=result.status, content_type=result.media_type)
    response.headers.extend(result.headers)
    if result.status in (204, 304):
        del response.headers["Content-Type"]
    return response
