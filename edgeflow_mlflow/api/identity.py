"""Who asks, and whether they may. Deny by default: a route without a policy does not start."""

from __future__ import annotations

from collections.abc import Callable

from edgeflow_agent.wire import tokens
from edgeflow_mlflow import errors
from edgeflow_mlflow.api.routing import Actor, Policy
from edgeflow_mlflow.services import enrol
from edgeflow_mlflow.services.state import State

_USER = (Policy.READ, Policy.OPERATE, Policy.ADMIN)
# The user of this request and whether MLflow knows them as an admin; raises UnauthenticatedError.
UserCheck = Callable[[], tuple[str, bool]]


def identify(state: State, policy: Policy, authorization: str, user_check: UserCheck | None) -> Actor:
    """The caller, if they may use a route of that policy. `user_check` is None when MLflow asks nobody
    for a name: operator routes are then as open as MLflow itself."""
    if policy is Policy.PUBLIC:
        return Actor()
    scheme, _, credential = authorization.partition(" ")
    credential = credential.strip()
    is_device = scheme.lower() == "bearer" and tokens.parse_credential(credential) is not None
    target = enrol.authenticate(state, credential) if is_device else None
    if policy is Policy.DEVICE:
        if target is None:
            raise errors.UnauthenticatedError(
                "this route is for enrolled devices: send the device credential as bearer token. "
                "If it was revoked, enrol the device again"
            )
        return Actor(name=target, target=target, may=frozenset({Policy.DEVICE}), credential=credential)
    if is_device:
        if target is None:
            raise errors.UnauthenticatedError("the device credential is unknown or revoked")
        raise errors.ForbiddenError("a device credential opens the routes under /device only")
    if user_check is None:
        return Actor(may=frozenset(_USER))
    name, is_admin = user_check()
    may = {Policy.READ}
    if is_admin:
        may.update(_USER)
    elif name in state.config["server.operators"]:
        may.add(Policy.OPERATE)
    if policy not in may:
        raise errors.ForbiddenError(
            f"user {name!r} may not do this: it takes "
            + (
                "an MLflow admin, or a name in [server] operators"
                if policy is Policy.OPERATE
                else "an MLflow admin"
            )
        )
    return Actor(name=name, may=frozenset(may))
