"""The part of the typed client that is about alerts."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from edgeflow_mlflow.api import records
from edgeflow_mlflow.client_calls import Calls


class AlertCalls(Calls):
    """Alerts, rules, silences and receivers."""

    def alerts(self, **query: str) -> list[records.AlertView]:
        """Alerts that are pending or fire, or by `phase`, `severity`, `rule` and `target`."""
        return self._all("/alerts", records.AlertList, lambda page: page.alerts, query)

    def newest_alerts(self, limit: int, **query: str) -> list[records.AlertView]:
        """The newest of them."""
        words = {**query, "limit": str(limit)}
        return self._call("GET", f"/alerts?{urlencode(words)}", records.AlertList).alerts

    def acknowledge(self, alert_id: int, why: str = "") -> records.AlertView:
        """Say that somebody looks after an alert."""
        return self._call(
            "POST", f"/alerts/{alert_id}/acknowledge", records.AlertView, records.Decide(why=why)
        )

    def alert_rules(self) -> list[records.RuleView]:
        """All rules."""
        return self._call("GET", "/alert-rules", records.RuleList).rules

    def alert_rule(self, name: str) -> records.RuleView:
        """One rule."""
        return self._call("GET", f"/alert-rules/{quote(name, safe='')}", records.RuleView)

    def try_alert_rule(self, body: records.RulePut) -> records.RuleTrial:
        """How often a rule would have fired lately."""
        return self._call("POST", "/alert-rules/try", records.RuleTrial, body)

    def put_alert_rule(self, name: str, body: records.RulePut) -> records.RuleView:
        """Make a rule, or change it."""
        return self._call("PUT", f"/alert-rules/{quote(name, safe='')}", records.RuleView, body)

    def delete_alert_rule(self, name: str) -> None:
        """Forget a rule."""
        self._call("DELETE", f"/alert-rules/{quote(name, safe='')}", records.Empty)

    def silence(self, body: records.SilenceCreate) -> records.SilenceView:
        """Tell nobody of some alerts for a while."""
        return self._call("POST", "/silences", records.SilenceView, body)

    def silences(self, *, expired: bool = False) -> list[records.SilenceView]:
        """Silences, with those that have ended when asked for."""
        query = {"expired": "true"} if expired else {}
        return self._all("/silences", records.SilenceList, lambda page: page.silences, query)

    def expire_silence(self, silence_id: str) -> records.SilenceView:
        """End a silence now."""
        return self._call("DELETE", f"/silences/{quote(silence_id, safe='')}", records.SilenceView)

    def receivers(self) -> list[records.ReceiverView]:
        """Who is told of alerts."""
        return self._call("GET", "/receivers", records.ReceiverList).receivers

    def receiver(self, name: str) -> records.ReceiverView:
        """One receiver, without its secrets."""
        return self._call("GET", f"/receivers/{quote(name, safe='')}", records.ReceiverView)

    def put_receiver(self, name: str, body: records.ReceiverPut) -> records.ReceiverView:
        """Make a receiver, or change it."""
        return self._call("PUT", f"/receivers/{quote(name, safe='')}", records.ReceiverView, body)

    def delete_receiver(self, name: str) -> None:
        """Forget a receiver."""
        self._call("DELETE", f"/receivers/{quote(name, safe='')}", records.Empty)

    def test_receiver(self, name: str) -> records.TrialResult:
        """Send it a test notification."""
        return self._call(
            "POST", f"/receivers/{quote(name, safe='')}/test", records.TrialResult, records.Empty()
        )

    def deliveries(self, name: str, *, limit: int = 100) -> list[records.DeliveryView]:
        """What a receiver was told, the newest first."""
        path = f"/receivers/{quote(name, safe='')}/deliveries?limit={limit}"
        return self._call("GET", path, records.DeliveryList).deliveries
