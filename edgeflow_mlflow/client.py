"""A typed Python client of /api/v1, over MLflow's own HTTP: its retries, credentials and TLS settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import click
import msgspec
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from edgeflow_agent import typed
from edgeflow_agent.wire.states import TERMINAL
from edgeflow_mlflow.alert_client import AlertCalls
from edgeflow_mlflow.api import records
from edgeflow_mlflow.lineage_client import LineageCalls
from edgeflow_mlflow.notebook import Rows
from edgeflow_mlflow.overview_client import OverviewCalls
from edgeflow_mlflow.registry_client import RegistryCalls
from edgeflow_mlflow.telemetry_client import TelemetryCalls

T = TypeVar("T", bound=msgspec.Struct)
_DONE = frozenset(state.value for state in TERMINAL)
_LOOK_EVERY_S = 0.25


class ApiError(MlflowException, click.ClickException):
    """The server refused, or cannot be reached. A command line shows the message and nothing else."""

    def __init__(self, message: str, *, status: int = 0, error_code: str = "BAD_REQUEST") -> None:
        from mlflow.protos import databricks_pb2

        known = databricks_pb2.ErrorCode.keys()
        code = databricks_pb2.ErrorCode.Value(error_code if error_code in known else "BAD_REQUEST")
        MlflowException.__init__(self, message, error_code=code)
        click.ClickException.__init__(self, message)
        self.status = status


def server_address(target_uri: str, tracking_uri: str) -> str:
    """The server that a deployments target means: `edgeflow` is the tracking server,
    `edgeflow:http://host:port` or `edgeflow://host:port` another one."""
    rest = target_uri.removeprefix("edgeflow").removeprefix(":")
    if rest.startswith("//"):
        rest = f"http:{rest}"
    address = (rest or tracking_uri).rstrip("/")
    if address.startswith(("http://", "https://")):
        return address
    raise ApiError(
        f"there is no Edgeflow server at {address!r}: set MLFLOW_TRACKING_URI=http://host:port, or use the "
        "target edgeflow:http://host:port",
        error_code="INVALID_PARAMETER_VALUE",
    )


class Client(AlertCalls, LineageCalls, OverviewCalls, RegistryCalls, TelemetryCalls):
    """Talks to one server. Every method raises ApiError with the server's own words."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    # ---- health

    def ready(self) -> records.Ready:
        """Whether a hub runs and MQTT is there."""
        return self._call("GET", "/ready", records.Ready)

    # ---- tokens

    def create_token(self, body: records.TokenCreate) -> records.TokenCreated:
        """A new enrolment token; its text is in the answer and nowhere else."""
        return self._call("POST", "/tokens", records.TokenCreated, body)

    def tokens(self) -> list[records.TokenView]:
        """All tokens."""
        return self._all("/tokens", records.TokenList, lambda page: page.tokens)

    def revoke_token(self, token_id: str) -> None:
        """Make a token worthless."""
        self._call("DELETE", f"/tokens/{quote(token_id, safe='')}", records.Empty)

    # ---- targets

    def targets(self, *, selector: str = "", deployment: str = "") -> list[records.TargetView]:
        """All targets, or those that a selector or a deployment picks."""
        query = {"selector": selector, "deployment": deployment}
        return self._all("/targets", records.TargetList, lambda page: page.targets, query)

    def target(self, name: str) -> records.TargetView:
        """One target."""
        return self._call("GET", f"/targets/{quote(name, safe='')}", records.TargetView)

    def label(self, name: str, labels: dict[str, str]) -> records.TargetView:
        """Give a target new labels."""
        return self._call(
            "PATCH",
            f"/targets/{quote(name, safe='')}",
            records.TargetView,
            records.TargetChange(labels=labels),
        )

    def revoke(self, name: str) -> records.TargetView:
        """Shut a device out."""
        return self._call(
            "POST", f"/targets/{quote(name, safe='')}/revoke", records.TargetView, records.Empty()
        )

    def delete_target(self, name: str) -> None:
        """Forget a target."""
        self._call("DELETE", f"/targets/{quote(name, safe='')}", records.Empty)

    def executions(self, name: str) -> Rows[records.ExecutionView]:
        """What a target was told to do, the newest first."""
        path = f"/targets/{quote(name, safe='')}/executions"
        return self._all(path, records.ExecutionList, lambda page: page.executions)

    def execution(self, execution_id: str) -> records.ExecutionDetail:
        """One execution with every report of it."""
        return self._call("GET", f"/executions/{quote(execution_id, safe='')}", records.ExecutionDetail)

    def diagnose(self, name: str) -> records.RemoteAnswer:
        """Ask a target for its health, disk, load and reports."""
        return self._call(
            "POST",
            f"/targets/{quote(name, safe='')}/diagnose",
            records.RemoteAnswer,
            records.DiagnoseRequest(),
        )

    def captures(self, name: str) -> list[records.CaptureView]:
        """Requests that a target has kept whole, the newest first."""
        return self._call("GET", f"/targets/{quote(name, safe='')}/captures", records.CaptureList).captures

    def capture(self, name: str, capture_id: str) -> records.Capture:
        """One of them, with its answer."""
        path = f"/targets/{quote(name, safe='')}/captures/{quote(capture_id, safe='')}"
        return self._call("GET", path, records.Capture)

    # ---- fleets

    def create_fleet(self, body: records.FleetCreate) -> records.FleetView:
        """Name a set of targets."""
        return self._call("POST", "/fleets", records.FleetView, body)

    def change_fleet(self, name: str, body: records.FleetChange) -> records.FleetView:
        """Define a fleet anew."""
        return self._call("PATCH", f"/fleets/{quote(name, safe='')}", records.FleetView, body)

    def delete_fleet(self, name: str) -> None:
        """Forget a fleet."""
        self._call("DELETE", f"/fleets/{quote(name, safe='')}", records.Empty)

    def fleets(self) -> list[records.FleetView]:
        """All fleets."""
        return self._all("/fleets", records.FleetList, lambda page: page.fleets)

    def fleet(self, name: str) -> records.FleetView:
        """One fleet."""
        return self._call("GET", f"/fleets/{quote(name, safe='')}", records.FleetView)

    # ---- deployments

    def create_deployment(self, body: records.DeploymentCreate) -> records.DeploymentView:
        """Bind a model to targets."""
        return self._call("POST", "/deployments", records.DeploymentView, body)

    def change_deployment(self, name: str, body: records.DeploymentChange) -> records.DeploymentView:
        """Move a deployment."""
        return self._call("PATCH", f"/deployments/{quote(name, safe='')}", records.DeploymentView, body)

    def delete_deployment(self, name: str, *, keep_serving: bool = False) -> records.DeploymentView:
        """End a deployment."""
        return self._call(
            "DELETE",
            f"/deployments/{quote(name, safe='')}",
            records.DeploymentView,
            records.DeploymentDelete(keep_serving=keep_serving),
        )

    def deployments(self) -> list[records.DeploymentView]:
        """All living deployments."""
        return self._all("/deployments", records.DeploymentList, lambda page: page.deployments)

    def deployment(self, name: str) -> records.DeploymentDetail:
        """One deployment, how each target stands, and its lineage."""
        return self._call("GET", f"/deployments/{quote(name, safe='')}", records.DeploymentDetail)

    def history(self, name: str) -> records.History:
        """The newest rollouts of a deployment."""
        return self._call("GET", f"/deployments/{quote(name, safe='')}/history", records.History)

    def predict(self, name: str, body: records.PredictRequest) -> records.RemoteAnswer:
        """Ask one of a deployment's targets."""
        return self._call("POST", f"/deployments/{quote(name, safe='')}/predict", records.RemoteAnswer, body)

    def watch(self, name: str, timeout_s: float) -> Iterator[records.DeploymentDetail]:
        """The deployment again and again until every target has ended, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            detail = self.deployment(name)
            yield detail
            goes_on = detail.deployment.rollout.state == "running"
            done = not goes_on and all(item.state in _DONE for item in detail.executions)
            if done or time.monotonic() >= deadline:
                return
            time.sleep(_LOOK_EVERY_S)

    # ---- rollouts

    def rollouts(self, name: str) -> list[records.RolloutProgress]:
        """A deployment's rollouts, newest first."""
        path = f"/deployments/{quote(name, safe='')}/rollouts"
        return self._all(path, records.RolloutList, lambda page: page.rollouts)

    def rollout(self, name: str, number: int | None = None) -> records.RolloutProgress:
        """One rollout, or the newest."""
        path = f"/deployments/{quote(name, safe='')}/rollouts"
        if number is not None:
            return self._call("GET", f"{path}/{number}", records.RolloutProgress)
        return self._call("GET", f"{path}?limit=1", records.RolloutList).rollouts[0]

    def wait(self, name: str, timeout_s: float = 600.0) -> records.RolloutProgress:
        """The newest rollout of a deployment, when it has succeeded. Raise ApiError when the time is over, or
        when it was halted, failed or was superseded: the message says why."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.rollout(name)
            if found.state == "succeeded":
                return found
            if found.state != "running":
                raise ApiError(f"rollout {found.number} of {name} is {found.state}: {found.why}")
            if time.monotonic() >= deadline:
                raise ApiError(f"rollout {found.number} of {name} is still under way after {timeout_s:g} s")
            time.sleep(_LOOK_EVERY_S)

    def rollout_targets(
        self, name: str, number: int, *, wave: int = 0, state: str = ""
    ) -> list[records.MemberView]:
        """The targets of a rollout, of one wave or in one state."""
        path = f"/deployments/{quote(name, safe='')}/rollouts/{number}/targets"
        query = {"wave": str(wave) if wave else "", "state": state}
        return self._all(path, records.MemberList, lambda page: page.members, query)

    def pause(self, name: str, why: str = "") -> records.RolloutProgress:
        """Give nobody else the model."""
        return self._decide(name, "pause", records.Decide(why=why))

    def resume(self, name: str, why: str = "") -> records.RolloutProgress:
        """Go on, and accept the failures so far."""
        return self._decide(name, "resume", records.Decide(why=why))

    def approve(self, name: str, why: str = "") -> records.RolloutProgress:
        """Let the next wave begin."""
        return self._decide(name, "approve", records.Decide(why=why))

    def abort(self, name: str, body: records.AbortRequest) -> records.RolloutProgress:
        """End the present rollout."""
        return self._decide(name, "abort", body)

    def roll_back(self, name: str, body: records.RollbackRequest) -> records.RolloutProgress:
        """Bring an earlier model back."""
        return self._decide(name, "rollback", body)

    def _decide(self, name: str, word: str, body: msgspec.Struct) -> records.RolloutProgress:
        path = f"/deployments/{quote(name, safe='')}/{word}"
        return self._call("POST", path, records.RolloutProgress, body)

    def hold(self, target: str, why: str = "") -> records.TargetView:
        """Leave a target out of rollouts."""
        path = f"/targets/{quote(target, safe='')}/hold"
        return self._call("POST", path, records.TargetView, records.Decide(why=why))

    def release(self, target: str, why: str = "") -> records.TargetView:
        """Let a held target take part again."""
        path = f"/targets/{quote(target, safe='')}/release"
        return self._call("POST", path, records.TargetView, records.Decide(why=why))

    def explain(self, target: str) -> records.Explanation:
        """Why a target has the model that it has."""
        return self._call("GET", f"/targets/{quote(target, safe='')}/explain", records.Explanation)

    def audit(self, *, subject: str = "", target: str = "", limit: int = 100) -> list[records.AuditEntry]:
        """The newest decisions."""
        query = {"subject": subject, "target": target, "limit": str(limit)}
        words = urlencode({key: value for key, value in query.items() if value})
        return self._call("GET", f"/audit?{words}", records.AuditList).entries

    def await_release(
        self, ended: records.DeploymentView, targets: Sequence[str], timeout_s: float
    ) -> list[records.ExecutionView]:
        """What targets made of the end of a deployment that held them, when every one has let go or the
        time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            newest: dict[str, records.ExecutionView] = {}
            for item in self.history(ended.name).executions:
                if item.rollout == ended.rollout.number and item.target in targets:
                    before = newest.get(item.target)
                    if before is None or before.generation < item.generation:
                        newest[item.target] = item
            if all(item.state in _DONE for item in newest.values()) or time.monotonic() >= deadline:
                return list(newest.values())
            time.sleep(_LOOK_EVERY_S)

    # ---- the wire

    def _all(
        self,
        path: str,
        kind: type[T],
        items: Callable[[T], Sequence[Any]],
        query: dict[str, str] | None = None,
    ) -> Rows[Any]:
        found: Rows[Any] = Rows()
        token = ""
        while True:
            words = {**(query or {}), "page_token": token, "limit": str(records.MAX_LIMIT)}
            page = self._call("GET", f"{path}?{urlencode({k: v for k, v in words.items() if v})}", kind)
            found.extend(items(page))
            token = page.next_page_token  # type: ignore[attr-defined]
            if not token:
                return found

    def _call(self, method: str, path: str, kind: type[T], body: msgspec.Struct | None = None) -> T:
        content = self._content(method, path, body)
        try:
            return typed.read(kind, content)
        except msgspec.MsgspecError as error:
            raise ApiError(
                f"{self.address} did not answer as an Edgeflow server does ({error}); is it started with "
                "`edgeflow server` or `mlflow server --app-name edgeflow`?"
            ) from error

    def _text(self, path: str) -> str:
        return self._content("GET", path, None).decode()

    def _content(self, method: str, path: str, body: msgspec.Struct | None) -> bytes:
        options: dict[str, Any] = {}
        if body is not None or method == "POST":
            options["data"] = msgspec.json.encode({} if body is None else body)
            options["extra_headers"] = {"Content-Type": "application/json"}
        if method != "GET":
            # Doing it twice could do it twice; a refusal is final anyway.
            options["max_retries"] = 0
        try:
            response = http_request(
                get_default_host_creds(self.address),
                f"/api/v1{path}",
                method,
                raise_on_status=False,
                **options,
            )
        except MlflowException as error:
            raise ApiError(
                f"cannot reach {self.address}: {error.message}", error_code="TEMPORARILY_UNAVAILABLE"
            ) from error
        if response.status_code >= 400:
            raise self._refusal(response.status_code, response.content)
        return bytes(response.content)

    def _refusal(self, status: int, content: bytes) -> ApiError:
        try:
            found = typed.read(records.Error, content)
        except msgspec.MsgspecError:
            hint = "; is it started with `edgeflow server` or `mlflow server --app-name edgeflow`?"
            text = content.decode(errors="replace").strip()[:300]
            return ApiError(
                f"{self.address} answered {status}: {text}{hint if status == 404 else ''}", status=status
            )
        return ApiError(found.message, status=status, error_code=found.error_code)
