"""The part of the typed client that asks where models come from, and takes data back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import quote, urlencode

import msgspec

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client_calls import Calls
from edgeflow_mlflow.notebook import Rows

_LOOK_EVERY_S = 1.0


class LineageCalls(Calls):
    """The chain from data set to device, from either end."""

    def lineage(self, target: str, at: datetime | None = None) -> records.TargetLineage:
        """Which run and which data produced the model on a device, now or at a moment."""
        return self._call("GET", f"{_target(target)}/lineage{_at(at)}", records.TargetLineage)

    def served(self, target: str) -> Rows[records.ServedView]:
        """Everything that a device served, the newest first."""
        return Rows(self._call("GET", f"{_target(target)}/served", records.ServedList).served)

    def datasets(self, words: str = "") -> Rows[records.DatasetView]:
        """Data sets that models were made from, whose name, digest or SHA-256 begins with `words`."""
        return self._all("/datasets", records.DatasetList, lambda page: page.datasets, {"words": words})

    def dataset_reach(
        self, *, at: datetime | None = None, any_use: bool = False, **dataset: str
    ) -> records.DatasetReach:
        """Which devices run a model trained on a data set, now or at a moment: all pages as one.

        `dataset` is any of `name`, `digest` (MLflow's), `content` (the SHA-256) and `dataset` (its id).
        """
        pages = list(self.dataset_reach_pages(at=at, any_use=any_use, **dataset))
        return msgspec.structs.replace(
            pages[0], devices=Rows(item for page in pages for item in page.devices), next_page_token=""
        )

    def dataset_reach_pages(
        self, *, at: datetime | None = None, any_use: bool = False, **dataset: str
    ) -> Iterator[records.DatasetReach]:
        """The same, a page at a time: a fleet may be large."""
        query = {**dataset, "any_use": str(any_use).lower(), "limit": str(records.MAX_LIMIT)}
        if at is not None:
            query["at"] = at.isoformat()
        token = ""
        while True:
            words = urlencode({**query, **({"page_token": token} if token else {})})
            page = self._call("GET", f"/lineage/devices?{words}", records.DatasetReach)
            yield page
            token = page.next_page_token
            if not token:
                return

    def diff(self, left: str, right: str) -> records.Diff:
        """What differs between two sides: targets, `TARGET@moment`, or model URIs."""
        return self._call("GET", f"/lineage/diff?{urlencode({'left': left, 'right': right})}", records.Diff)

    def lineage_graph(self, node: str, *, limit: int = 200) -> records.GraphView:
        """Everything above and below `dataset:ID`, `run:ID`, `logged:ID` or `version:NAME/NUMBER`."""
        words = urlencode({"node": node, "limit": limit})
        return self._call("GET", f"/lineage/graph?{words}", records.GraphView)

    def rebuild_lineage(self) -> records.RebuildView:
        """Read MLflow again and make the edge table anew."""
        return self._call("POST", "/lineage/rebuild", records.RebuildView)

    # ---- recalls

    def plan_recall(
        self, *, any_use: bool = False, go_to: Mapping[str, str] | None = None, **dataset: str
    ) -> records.RecallPlan:
        """What a recall of a data set would do; it changes nothing. `dataset` as in `dataset_reach`."""
        body = records.RecallPlanRequest(any_use=any_use, go_to=dict(go_to or {}), **dataset)
        return self._call("POST", "/recalls/plan", records.RecallPlan, body)

    def recall(
        self, why: str, *, any_use: bool = False, go_to: Mapping[str, str] | None = None, **dataset: str
    ) -> records.RecallDetail:
        """Recall a data set: its models are held back, and its devices go to others."""
        body = records.RecallCreate(why=why, any_use=any_use, go_to=dict(go_to or {}), **dataset)
        return self._call("POST", "/recalls", records.RecallDetail, body)

    def recalls(self, *, standing: bool = False) -> Rows[records.RecallView]:
        """Recalls, the newest first; `standing` leaves out those that were lifted."""
        query = {"standing": "true"} if standing else {}
        return self._all("/recalls", records.RecallList, lambda page: page.recalls, query)

    def recall_detail(self, recall_id: str) -> records.RecallDetail:
        """A recall and every device of it."""
        return self._call("GET", _recall(recall_id), records.RecallDetail)

    def wait_for_recall(self, recall_id: str, timeout_s: float) -> records.RecallDetail:
        """A recall when every device that is there is corrected, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.recall_detail(recall_id)
            if found.recall.done or time.monotonic() >= deadline:
                return found
            time.sleep(_LOOK_EVERY_S)

    def recall_report(self, recall_id: str) -> records.RecallReport:
        """Evidence of a recall. As a page to print: `/api/v1/recalls/ID/report?format=html`."""
        return self._call("GET", f"{_recall(recall_id)}/report", records.RecallReport)

    def recall_page(self, recall_id: str) -> str:
        """The same as one page of HTML."""
        return self._text(f"{_recall(recall_id)}/report?format=html")

    def resume_recall(self, recall_id: str) -> records.RecallDetail:
        """Carry out what a recall has not."""
        return self._call("POST", f"{_recall(recall_id)}/resume", records.RecallDetail)

    def lift_recall(self, recall_id: str, why: str = "") -> records.RecallDetail:
        """End a recall: its models may be deployed again."""
        body = records.RecallLift(why=why)
        return self._call("POST", f"{_recall(recall_id)}/lift", records.RecallDetail, body)


def _target(name: str) -> str:
    return f"/targets/{quote(name, safe='')}"


def _recall(recall_id: str) -> str:
    return f"/recalls/{quote(recall_id, safe='')}"


def _at(moment: datetime | None) -> str:
    return "" if moment is None else f"?{urlencode({'at': moment.isoformat()})}"
