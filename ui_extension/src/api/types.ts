// Made by scripts/ui_types.py from the OpenAPI document; `make ui` makes it anew.

export interface AbortRequest {
  "devices"?: "keep" | "revert";
  "why"?: string;
}

export interface Actual {
  "model": string;
  "version": string;
  "run_id": string;
  "digest": string;
  "previous_digest": string;
  "generation": number;
  "serving": boolean;
  "stale": boolean;
  "agent_version": string;
  "onnxruntime_version": string;
  "platform": string;
  "hostname": string;
  "infer_url": string;
}

export interface AlertList {
  "alerts": AlertView[];
  "next_page_token"?: string;
}

export interface AlertView {
  "id": number;
  "fingerprint": string;
  "rule": string;
  "severity": string;
  "phase": string;
  "target": string;
  "labels": Record<string, string>;
  "annotations": Record<string, string>;
  "active_at": string | null;
  "fired_at": string | null;
  "resolved_at": string | null;
  "acknowledged_at": string | null;
  "acknowledged_by": string;
  "acknowledged_why": string;
  "silenced_by": string[];
  "inhibited": boolean;
  "receivers": string[];
}

export interface Alternative {
  "model": string;
  "uri": string;
}

export interface AuditEntry {
  "id": number;
  "at": string;
  "actor": string;
  "action": string;
  "subject": string;
  "target": string;
  "rollout": number | null;
  "why": string;
  "detail": Record<string, unknown>;
}

export interface AuditList {
  "entries": AuditEntry[];
  "next_page_token"?: string;
}

export interface BaselineKept {
  "sha256": string;
}

export interface BaselineUpload {
  "digest": string;
  "baseline": string;
}

export interface Capture {
  "id": string;
  "at": string;
  "model": string;
  "version": string;
  "digest": string;
  "inputs": Record<string, unknown>;
  "outputs": Record<string, unknown>;
}

export interface CaptureList {
  "captures": CaptureView[];
}

export interface CaptureView {
  "id": string;
  "at": string;
  "size": number;
}

export interface Column {
  "name": string;
  "type"?: string;
}

export interface DatasetList {
  "datasets": DatasetView[];
  "next_page_token"?: string;
}

export interface DatasetReach {
  "at": string;
  "datasets": DatasetView[];
  "versions": ReachedVersion[];
  "devices": ReachedDevice[];
  "next_page_token"?: string;
}

export interface DatasetUse {
  "id": string;
  "name": string;
  "digest": string;
  "content": string;
  "source_type": string;
  "source": string;
  "context": string;
  "way": string[];
}

export interface DatasetView {
  "id": string;
  "name": string;
  "digest": string;
  "content": string;
  "source_type": string;
  "source": string;
}

export interface Decide {
  "why"?: string;
}

export interface Decision {
  "at": string;
  "actor": string;
  "action": string;
  "subject": string;
  "rollout": number | null;
  "target": string;
  "why": string;
}

export interface DeliveryList {
  "deliveries": DeliveryView[];
  "next_page_token"?: string;
}

export interface DeliveryView {
  "delivery_id": string;
  "reason": string;
  "title": string;
  "state": string;
  "attempts": number;
  "error": string;
  "created_at": string;
  "next_at": string;
  "ended_at": string | null;
}

export interface DeploymentChange {
  "model_uri"?: string | null;
  "where"?: Place | null;
  "runtime"?: RuntimeSettings;
  "trial"?: TrialSettings;
  "monitor"?: MonitorSettings;
  "rollout"?: RolloutSettings;
  "follow_alias"?: boolean;
  "replace"?: boolean;
  "reason"?: string;
}

export interface DeploymentCreate {
  "name": string;
  "model_uri": string;
  "where": Place;
  "runtime"?: RuntimeSettings;
  "trial"?: TrialSettings;
  "monitor"?: MonitorSettings;
  "rollout"?: RolloutSettings;
  "follow_alias"?: boolean;
  "replace"?: boolean;
}

export interface DeploymentDelete {
  "keep_serving"?: boolean;
}

export interface DeploymentDetail {
  "deployment": DeploymentView;
  "executions": ExecutionView[];
  "interface": Interface;
  "lineage": Record<string, unknown>;
  "steps"?: string[];
}

export interface DeploymentList {
  "deployments": DeploymentView[];
  "next_page_token"?: string;
}

export interface DeploymentView {
  "id": string;
  "name": string;
  "flavor": string;
  "status": string;
  "model_uri": string;
  "alias": string;
  "fleet": string;
  "selector": string;
  "targets": string[];
  "rollout": RolloutView;
  "created_at": string;
  "created_by": string;
  "updated_at": string;
}

export interface DiagnoseRequest {
  "timeout_s"?: number;
}

export interface Diff {
  "left": string;
  "right": string;
  "sections": SectionView[];
}

export interface DifferenceView {
  "name": string;
  "left": unknown;
  "right": unknown;
}

export interface DriftList {
  "verdicts": DriftView[];
  "next_page_token"?: string;
}

export interface DriftReport {
  "from": string;
  "to": string;
  "model": string;
  "version": string;
  "digest": string;
  "baseline": string;
  "is_learned": boolean;
  "targets": number;
  "windows": number;
  "used": number;
  "refused": number;
  "features": FeatureReport[];
}

export interface DriftView {
  "scope": string;
  "name": string;
  "model": string;
  "version": string;
  "digest": string;
  "baseline": string;
  "feature": string;
  "kind": string;
  "status": string;
  "significant": boolean;
  "alarm": boolean;
  "evaluations": number;
  "p_value": number | null;
  "n": number;
  "signals": SignalView[];
  "history": Evaluation[];
  "from": string;
  "to": string;
  "updated_at": string;
}

export interface EdgeView {
  "child": string;
  "parent": string;
  "how": string;
  "context": string;
}

export interface Empty {
}

export interface EnrolRequest {
  "token": string;
  "target": string;
  "idempotency_key": string;
  "agent_version"?: string;
  "platform"?: string;
  "hostname"?: string;
}

export interface EnrolResponse {
  "target": string;
  "credential": string;
  "fleet": string;
  "root_key": string;
  "trust": string;
  "mqtt"?: string;
}

export interface Error {
  "error_code": string;
  "message": string;
}

export interface Evaluation {
  "at": string;
  "n": number;
  "status": string;
  "p_value": number | null;
  "significant": boolean;
}

export interface EvidenceOfDevice {
  "target": string;
  "served": ServedView[];
}

export interface ExecutionDetail {
  "execution": ExecutionView;
  "reports": ReportView[];
}

export interface ExecutionList {
  "executions": ExecutionView[];
  "next_page_token"?: string;
}

export interface ExecutionView {
  "id": string;
  "target": string;
  "deployment": string;
  "rollout": number;
  "generation": number;
  "action": string;
  "state": string;
  "reason": string;
  "message": string;
  "progress": number | null;
  "created_at": string;
  "updated_at": string;
  "finished_at": string | null;
}

export interface ExperimentList {
  "experiments": ExperimentView[];
  "next_page_token"?: string;
}

export interface ExperimentView {
  "id": string;
  "name": string;
  "lifecycle_stage": string;
  "runs_on"?: RunsOn[];
}

export interface Explanation {
  "target": TargetView;
  "because": string[];
  "rollout": RolloutProgress | null;
  "decisions": AuditEntry[];
}

export interface FeatureReport {
  "feature": string;
  "kind": string;
  "n": number;
  "missing": number;
  "status": string;
  "p_value": number | null;
  "signals": SignalView[];
  "statistics": Record<string, MeasureView>;
  "histogram": HistogramView;
}

export interface FileRef {
  "path": string;
  "sha256": string;
  "size": number;
}

export interface FileView {
  "path": string;
  "sha256": string;
  "size": number;
}

export interface FleetChange {
  "selector"?: string;
  "targets"?: string[];
}

export interface FleetCreate {
  "name": string;
  "selector"?: string;
  "targets"?: string[];
}

export interface FleetList {
  "fleets": FleetView[];
  "next_page_token"?: string;
}

export interface FleetView {
  "name": string;
  "selector": string;
  "targets": string[];
  "created_at": string;
  "created_by": string;
}

export interface Gap {
  "what": string;
  "why": string;
}

export interface Glance {
  "id": string;
  "labels": Record<string, string>;
  "flags": string[];
  "model": string;
  "version": string;
  "deployment": string;
  "step": string;
  "reason": string;
  "drift_alarms": number;
  "last_seen_at": string | null;
}

export interface GlanceList {
  "targets": Glance[];
  "next_page_token"?: string;
}

export interface GraphView {
  "node": string;
  "edges": EdgeView[];
  "datasets": DatasetView[];
  "truncated": boolean;
}

export interface Health {
  "status": string;
  "version": string;
}

export interface HistogramView {
  "edges": number[];
  "labels": string[];
  "baseline": number[];
  "live": number[];
}

export interface History {
  "deployment": string;
  "rollouts": RolloutView[];
  "executions": ExecutionView[];
  "next_page_token"?: string;
}

export interface IntentView {
  "action": string;
  "model": string;
  "version": string;
  "digest": string;
  "deployment": string;
  "rollout": number;
  "execution": string;
  "state": string;
  "decided_at": string;
  "decided_by": string;
  "reason": string;
}

export interface Interface {
  "inputs"?: TensorSpec[];
  "outputs"?: TensorSpec[];
  "columns"?: Column[];
  "labels"?: string[];
}

export interface MailSettings {
  "host": string;
  "sender": string;
  "to": string[];
  "port"?: number;
  "tls"?: "none" | "starttls" | "tls";
  "username"?: string;
}

export interface MeasureView {
  "value": number | null;
  "approx": boolean;
}

export interface MemberList {
  "members": MemberView[];
  "next_page_token"?: string;
}

export interface MemberView {
  "target": string;
  "wave": number;
  "attempts": number;
  "held": boolean;
  "assigned_at": string | null;
  "execution": ExecutionView | null;
}

export interface Model {
  "name": string;
  "version": string;
  "run_id": string;
  "model_id": string;
  "digest": string;
  "bytes": number;
  "files": FileRef[];
  "has_baseline": boolean;
}

export interface ModelDetail {
  "model": ModelView;
  "versions": ModelVersionView[];
}

export interface ModelFactsView {
  "model": string;
  "version": string;
  "digest": string;
  "files": FileView[];
  "baseline_sha256": string;
  "source": string;
  "published_at": string;
  "run": Record<string, unknown> | null;
  "logged_model": Record<string, unknown> | null;
  "datasets": DatasetUse[];
  "graph": Record<string, unknown>;
  "environment": Record<string, string>;
  "gaps": Gap[];
}

export interface ModelList {
  "models": ModelView[];
  "next_page_token"?: string;
}

export interface ModelVersionView {
  "name": string;
  "version": string;
  "run_id": string;
  "aliases": string[];
  "verdict": string;
  "verdict_message": string;
  "runs_on": RunsOn[];
}

export interface ModelView {
  "name": string;
  "description": string;
  "aliases": Record<string, string>;
  "runs_on": RunsOn[];
}

export interface Monitor {
  "baseline_sha256"?: string;
  "window_s"?: number;
  "capture_rate"?: number;
}

export interface MonitorSettings {
  "window_s"?: number;
  "capture_rate"?: number;
}

export interface Overview {
  "targets": number;
  "flags": Record<string, number>;
  "versions": VersionCount[];
  "user": string;
  "may": string[];
  "at": string;
}

export interface Place {
  "targets"?: string[];
  "fleet"?: string;
  "selector"?: string;
}

export interface PlannedDevice {
  "target": string;
  "deployment": string;
  "model": string;
  "version": string;
  "bonds": string[];
  "remedy": string;
  "goes_to": string;
  "status": string;
}

export interface PredictRequest {
  "inputs": unknown;
  "target"?: string;
  "timeout_s"?: number;
}

export interface Presence {
  "kind": PresenceKind;
  "boot": string;
  "generation"?: number;
  "execution"?: string;
  "deployment"?: string;
  "model"?: string;
  "version"?: string;
  "digest"?: string;
  "previous_digest"?: string;
  "agent_version"?: string;
  "onnxruntime_version"?: string;
  "platform"?: string;
  "hostname"?: string;
  "infer_url"?: string;
  "serving"?: boolean;
  "stale"?: boolean;
  "pending_reports"?: number;
  "dropped_reports"?: number;
  "uptime_s"?: number;
  "at"?: string | null;
}

export type PresenceKind = "birth" | "goodbye" | "heartbeat";

export interface Preview {
  "targets": number;
  "online": number;
  "held": number;
  "elsewhere": Record<string, number>;
  "waves": WavePreview[];
}

export interface PreviewRequest {
  "where": Place;
  "waves"?: string[];
}

export interface ReachedDevice {
  "target": string;
  "model": string;
  "version": string;
  "digest": string;
  "since": string;
  "until": string | null;
  "status": string;
  "way": string[];
}

export interface ReachedVersion {
  "model": string;
  "version": string;
  "way": string[];
}

export interface Reading {
  "gate": string;
  "verdict": string;
  "value": number | null;
  "limit": number;
  "text": string;
}

export interface Ready {
  "status": string;
  "hub": boolean;
  "hub_holder"?: string;
  "hub_fence"?: number;
  "hub_pid"?: number;
  "mqtt"?: string;
  "mqtt_healthy"?: boolean;
  "mqtt_connected"?: number;
  "mqtt_error"?: string;
}

export interface RebuildView {
  "versions": number;
  "bundles": number;
  "edges": number;
  "problems": string[];
}

export interface RecallCreate {
  "name"?: string;
  "digest"?: string;
  "content"?: string;
  "dataset"?: string;
  "any_use"?: boolean;
  "go_to"?: Record<string, string>;
  "why": string;
}

export interface RecallDetail {
  "recall": RecallView;
  "versions": ReachedVersion[];
  "devices": RecallDevice[];
}

export interface RecallDevice {
  "target": string;
  "deployment": string;
  "model": string;
  "version": string;
  "bonds": string[];
  "remedy": string;
  "goes_to": string;
  "status": string;
  "error": string;
  "serves": string;
  "serves_name": string;
  "corrected_at": string | null;
  "last_seen_at": string | null;
}

export interface RecallLift {
  "why"?: string;
}

export interface RecallList {
  "recalls": RecallView[];
  "next_page_token"?: string;
}

export interface RecallPlan {
  "datasets": DatasetView[];
  "versions": ReachedVersion[];
  "alternatives": Alternative[];
  "devices": PlannedDevice[];
  "counts": Record<string, number>;
}

export interface RecallPlanRequest {
  "name"?: string;
  "digest"?: string;
  "content"?: string;
  "dataset"?: string;
  "any_use"?: boolean;
  "go_to"?: Record<string, string>;
}

export interface RecallReport {
  "made_at": string;
  "fleet": string;
  "detail": RecallDetail;
  "served": EvidenceOfDevice[];
  "decisions": Decision[];
}

export interface RecallView {
  "id": string;
  "why": string;
  "datasets": string[];
  "any_use": boolean;
  "created_at": string;
  "created_by": string;
  "lifted_at": string | null;
  "lifted_by": string;
  "lift_why": string;
  "counts": Record<string, number>;
  "done": boolean;
}

export interface ReceiverList {
  "receivers": ReceiverView[];
}

export interface ReceiverPut {
  "kind": "alertmanager" | "email" | "slack" | "webhook";
  "url"?: string | null;
  "secret"?: string | null;
  "mail"?: MailSettings | null;
  "password"?: string | null;
  "matchers"?: string[];
  "default"?: boolean;
  "group_by"?: string[];
  "group_wait_s"?: number;
  "group_interval_s"?: number;
  "repeat_interval_s"?: number;
  "send_resolved"?: boolean;
}

export interface ReceiverView {
  "name": string;
  "kind": string;
  "address": string;
  "mail": Record<string, unknown>;
  "has_secret": boolean;
  "matchers": string[];
  "default": boolean;
  "group_by": string[];
  "group_wait_s": number;
  "group_interval_s": number;
  "repeat_interval_s": number;
  "send_resolved": boolean;
  "updated_at": string;
  "updated_by": string;
  "waiting": number;
  "last_error": string;
}

export interface RefusalList {
  "refusals": RefusalView[];
  "next_page_token"?: string;
}

export interface RefusalView {
  "target": string;
  "reason": string;
  "count": number;
  "text": string;
  "first_at": string;
  "last_at": string;
}

export interface RemoteAnswer {
  "target": string;
  "status": number;
  "answer": unknown;
}

export interface Report {
  "boot": string;
  "seq": number;
  "execution": string;
  "generation": number;
  "state": State;
  "attempt"?: number;
  "reason"?: string;
  "message"?: string;
  "progress"?: number | null;
  "digest"?: string;
  "at"?: string | null;
  "trial"?: TrialFigures | null;
}

export interface ReportView {
  "state": string;
  "reason": string;
  "message": string;
  "progress": number | null;
  "generation": number;
  "decision": string;
  "device_at": string | null;
  "received_at": string;
}

export interface ReportsRequest {
  "presence"?: Presence | null;
  "reports"?: Report[];
}

export interface ReportsResponse {
  "stored"?: Stored[];
}

export interface RollbackRequest {
  "to"?: number | null;
  "why"?: string;
}

export interface RolloutList {
  "rollouts": RolloutProgress[];
  "next_page_token"?: string;
}

export interface RolloutProgress {
  "deployment": string;
  "number": number;
  "state": string;
  "why": string;
  "model": string;
  "version": string;
  "wave": number;
  "waves": WaveView[];
  "settings": Record<string, unknown>;
  "reason": string;
  "returns_to": number | null;
  "takes_back": number | null;
  "created_at": string;
  "created_by": string;
  "finished_at": string | null;
}

export interface RolloutSettings {
  "waves"?: string[];
  "soak_s"?: number;
  "rate_per_minute"?: number;
  "start_at"?: string;
  "window_cron"?: string;
  "window_minutes"?: number;
  "window_zone"?: string;
  "approval"?: boolean;
  "on_failure"?: "pause" | "rollback";
  "max_failure_rate"?: number;
  "minimum_executed"?: number;
  "max_error_rate"?: number | null;
  "max_latency_ratio"?: number | null;
  "max_drift_rate"?: number | null;
  "drift_gate"?: "both" | "inputs" | "outputs";
  "drift_wait_s"?: number;
  "offline_wait_s"?: number;
  "retries"?: Record<string, number>;
}

export interface RolloutView {
  "number": number;
  "state": string;
  "why": string;
  "wave": number;
  "model_uri": string;
  "model": Model;
  "status": string;
  "counts": Record<string, number>;
  "runtime": Runtime;
  "trial": Trial;
  "monitor": Monitor;
  "reason": string;
  "created_at": string;
  "created_by": string;
}

export interface Rotated {
  "credential": string;
}

export interface RuleList {
  "rules": RuleView[];
}

export interface RulePut {
  "kind": string;
  "parameters"?: Record<string, unknown>;
  "for_s"?: number;
  "keep_firing_for_s"?: number;
  "severity"?: "critical" | "info" | "warning";
  "selector"?: string;
  "model"?: string;
  "deployment"?: string;
  "labels"?: Record<string, string>;
  "annotations"?: Record<string, string>;
  "enabled"?: boolean;
}

export interface RuleTrial {
  "can_tell": boolean;
  "since": string;
  "times"?: number;
  "objects"?: number;
  "last_at"?: string | null;
  "text"?: string;
}

export interface RuleView {
  "name": string;
  "origin": string;
  "kind": string;
  "parameters": Record<string, unknown>;
  "for_s": number;
  "keep_firing_for_s": number;
  "severity": string;
  "selector": string;
  "model": string;
  "deployment": string;
  "labels": Record<string, string>;
  "annotations": Record<string, string>;
  "enabled": boolean;
  "firing"?: number;
  "pending"?: number;
}

export interface RunList {
  "runs": RunView[];
  "next_page_token"?: string;
}

export interface RunView {
  "id": string;
  "name": string;
  "experiment_id": string;
  "status": string;
  "user": string;
  "started_ms": number | null;
  "params": Record<string, string>;
  "metrics": Record<string, number | null>;
  "datasets": Record<string, string>[];
  "runs_on": RunsOn[];
}

export interface RunsOn {
  "target": string;
  "model": string;
  "version": string;
  "desired": boolean;
  "actual": boolean;
  "fallback": boolean;
  "status": string;
}

export interface Runtime {
  "providers"?: string[];
  "threads"?: number;
  "max_concurrent"?: number;
  "load_timeout_s"?: number;
  "max_memory_mb"?: number;
}

export interface RuntimeSettings {
  "providers"?: string[];
  "threads"?: number;
  "max_concurrent"?: number;
  "load_timeout_s"?: number;
  "max_memory_mb"?: number;
}

export interface SectionView {
  "name": string;
  "differences": DifferenceView[];
  "same": Record<string, unknown>;
}

export interface ServedList {
  "served": ServedView[];
}

export interface ServedView {
  "digest": string;
  "since": string;
  "until": string | null;
  "model": string;
  "version": string;
  "deployment": string;
  "rollout": number | null;
  "execution": string;
}

export interface Session {
  "target": string;
  "fleet": string;
  "mqtt"?: string;
  "trust_version"?: number;
  "heartbeat_s"?: number;
  "poll_s"?: number;
  "slow_poll_s"?: number;
  "rotate"?: boolean;
}

export interface SignalView {
  "statistic": string;
  "value": number | null;
  "threshold": number | null;
  "status": string;
  "text": string;
  "approx"?: boolean;
  "p_value"?: number | null;
}

export interface SilenceCreate {
  "matchers": string[];
  "duration_s"?: number | null;
  "starts_at"?: string | null;
  "ends_at"?: string | null;
  "comment"?: string;
}

export interface SilenceList {
  "silences": SilenceView[];
  "next_page_token"?: string;
}

export interface SilenceView {
  "id": string;
  "state": string;
  "matchers": string[];
  "starts_at": string;
  "ends_at": string;
  "comment": string;
  "created_at": string;
  "created_by": string;
}

export type State = "accepted" | "cancelled" | "deployed" | "downloading" | "failed" | "loading" | "offered" | "pending" | "rejected" | "rolled_back" | "superseded" | "timed_out" | "trial" | "verifying";

export interface Stored {
  "boot": string;
  "seqs": number[];
}

export interface TargetChange {
  "labels": Record<string, string>;
}

export interface TargetLineage {
  "target": string;
  "at": string;
  "served": ServedView | null;
  "intended": IntentView | null;
  "model": ModelFactsView | null;
  "findings": Gap[];
}

export interface TargetList {
  "targets": TargetView[];
  "next_page_token"?: string;
}

export interface TargetView {
  "id": string;
  "labels": Record<string, string>;
  "status": string;
  "connected": boolean;
  "in_sync": boolean;
  "deployment": string | null;
  "held_at": string | null;
  "held_by": string;
  "hold_reason": string;
  "generation": number;
  "created_at": string;
  "last_seen_at": string | null;
  "actual": Actual;
  "execution"?: ExecutionView | null;
}

export interface TelemetryPoint {
  "at": string;
  "windows": number;
  "targets": number;
  "requests": number;
  "failed": number;
  "error_rate": number | null;
  "throughput": number;
  "latency_mean_s": number | null;
  "latency_p50_s": number | null;
  "latency_p95_s": number | null;
  "latency_p99_s": number | null;
  "outcomes": Record<string, number>;
  "observed": number;
  "unobserved": number;
  "swaps": number;
  "dropped": number;
  "resources": Record<string, number>;
}

export interface TelemetryRequest {
  "windows"?: string[];
}

export interface TelemetryResponse {
  "stored"?: Stored[];
  "refused"?: Record<string, string>;
}

export interface TelemetryView {
  "from": string;
  "to": string;
  "step_s": number;
  "points": TelemetryPoint[];
}

export interface TensorSpec {
  "name": string;
  "dtype": string;
  "shape"?: (number | string | null)[];
}

export interface ThresholdsChange {
  "limits"?: Record<string, number | null>;
  "min_samples"?: number;
  "min_reference"?: number;
  "chance"?: number;
}

export interface ThresholdsView {
  "limits": Record<string, number>;
  "min_samples": number;
  "min_reference": number;
  "chance": number;
  "is_usual": boolean;
}

export interface TokenCreate {
  "uses"?: number;
  "ttl_s"?: number;
  "labels"?: Record<string, string>;
  "target"?: string | null;
  "note"?: string;
}

export interface TokenCreated {
  "token": string;
  "details": TokenView;
}

export interface TokenList {
  "tokens": TokenView[];
  "next_page_token"?: string;
}

export interface TokenView {
  "id": string;
  "uses": number;
  "uses_left": number;
  "expires_at": string;
  "labels": Record<string, string>;
  "target": string | null;
  "note": string;
  "created_at": string;
  "created_by": string;
  "revoked": boolean;
}

export interface Trial {
  "duration_s"?: number;
  "minimum_requests"?: number;
  "max_error_rate"?: number;
  "max_latency_ratio"?: number;
}

export interface TrialFigures {
  "requests"?: number;
  "errors"?: number;
  "non_finite"?: number;
  "mean_s"?: number;
  "usual_s"?: number;
}

export interface TrialResult {
  "delivered": boolean;
  "status": number;
  "text": string;
}

export interface TrialSettings {
  "duration_s"?: number;
  "minimum_requests"?: number;
  "max_error_rate"?: number;
  "max_latency_ratio"?: number;
}

export interface VersionCount {
  "model": string;
  "version": string;
  "targets": number;
}

export interface WavePreview {
  "number": number;
  "targets": number;
  "online": number;
  "is_drawn": boolean;
  "some": string[];
}

export interface WaveView {
  "number": number;
  "state": string;
  "targets": number;
  "waiting": number;
  "held": number;
  "counts": Record<string, number>;
  "started_at": string | null;
  "soak_until": string | null;
  "finished_at": string | null;
  "approved_by": string;
  "readings": Reading[];
}
