"""Every record of the wire: round trip, unknown fields, sizes, and the golden files that never change."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.states import State

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_FILE = documents.FileRef(path="model.onnx", sha256="ab" * 32, size=1234)
_MODEL = documents.ModelRef(name="iris", version="3", run_id="r1")
_TENSOR = documents.TensorSpec(name="input", dtype="tensor(float)", shape=("batch", None, 4))
_COLUMN = documents.Column(name="sepal_length", type="float")
_INTERFACE = documents.Interface(
    inputs=(_TENSOR,), outputs=(_TENSOR,), columns=(_COLUMN,), labels=("setosa", "virginica")
)
_RUNTIME = documents.Runtime(
    providers=("CPUExecutionProvider",), threads=2, max_concurrent=3, load_timeout_s=30.5, max_memory_mb=512
)
_TRIAL = documents.Trial(duration_s=10.5, minimum_requests=20, max_error_rate=0.2, max_latency_ratio=3.5)
_MONITOR = documents.Monitor(baseline_sha256="cd" * 32, window_s=30.5, capture_rate=0.25)
_DEPLOYMENT = documents.DesiredDeployment(
    id="d1",
    execution="e1",
    name="iris",
    action=documents.Action.INSTALL,
    model=_MODEL,
    files=(_FILE,),
    entry="model.onnx",
    interface=_INTERFACE,
    runtime=_RUNTIME,
    trial=_TRIAL,
    monitor=_MONITOR,
    commit="remote",
    recalled=("ee" * 32,),
)
_FIGURES = documents.TrialFigures(requests=40, errors=3, non_finite=2, mean_s=0.25, usual_s=0.125)
_REPORT = documents.Report(
    boot="b1",
    seq=7,
    execution="e1",
    generation=5,
    state=State.DOWNLOADING,
    attempt=2,
    reason="slow",
    message="half of it",
    progress=0.5,
    digest="ef" * 32,
    at=AT,
    trial=_FIGURES,
)
_PRESENCE = documents.Presence(
    kind=documents.PresenceKind.BIRTH,
    boot="b1",
    generation=5,
    execution="e1",
    deployment="iris",
    model="iris",
    version="3",
    digest="ef" * 32,
    previous_digest="ee" * 32,
    agent_version="0.1.0",
    onnxruntime_version="1.32.0",
    platform="linux-aarch64",
    hostname="host",
    infer_url="http://127.0.0.1:8500/infer",
    serving=True,
    stale=True,
    pending_reports=1,
    dropped_reports=2,
    uptime_s=3.5,
    at=AT,
)
_STORED = documents.Stored(boot="b1", seqs=(1, 2, 3))

# One full example of each record: every field away from its default.
EXAMPLES: dict[str, documents._Record] = {
    "file_ref": _FILE,
    "model_ref": _MODEL,
    "tensor_spec": _TENSOR,
    "column": _COLUMN,
    "interface": _INTERFACE,
    "runtime": _RUNTIME,
    "trial": _TRIAL,
    "monitor": _MONITOR,
    "desired_deployment": _DEPLOYMENT,
    "desired_state": documents.DesiredState(
        fleet="f1",
        target="robot-07",
        generation=5,
        issued_at=AT,
        expires_at=AT,
        deployments=(_DEPLOYMENT,),
        v=2,
    ),
    "trust": documents.Trust(fleet="f1", version=2, keys={"k": "a2V5"}, v=2),
    "trial_figures": _FIGURES,
    "report": _REPORT,
    "presence": _PRESENCE,
    "stored": _STORED,
    "rpc_request": documents.RpcRequest(id="q1", method="predict", body=msgspec.Raw(b"[5.1,3.5]")),
    "rpc_response": documents.RpcResponse(id="q1", status=200, body=msgspec.Raw(b'{"a":1}')),
    "enrol_request": documents.EnrolRequest(
        token="t",
        target="robot-07",
        idempotency_key="i",
        agent_version="0.1.0",
        platform="linux",
        hostname="h",
    ),
    "enrol_response": documents.EnrolResponse(
        target="robot-07",
        credential="c",
        fleet="f1",
        root_key="a2V5",
        trust="{}",
        mqtt="mqtt://127.0.0.1:1883",
    ),
    "session": documents.Session(
        target="robot-07",
        fleet="f1",
        mqtt="mqtt://h",
        trust_version=2,
        heartbeat_s=1.5,
        poll_s=2.5,
        slow_poll_s=3.5,
        rotate=False,
    ),
    "reports_request": documents.ReportsRequest(presence=_PRESENCE, reports=(_REPORT,)),
    "reports_response": documents.ReportsResponse(stored=(_STORED,)),
}
KINDS = {
    kind
    for _, kind in inspect.getmembers(documents, inspect.isclass)
    if issubclass(kind, documents._Record) and kind is not documents._Record
}
names = pytest.mark.parametrize("name", sorted(EXAMPLES))


def test_every_record_has_an_example_and_a_golden_file() -> None:
    """A new record: add it to EXAMPLES, and write its golden file by the line that this prints."""
    assert {type(record) for record in EXAMPLES.values()} == KINDS
    missing = [name for name in EXAMPLES if not (GOLDEN / f"{name}.json").is_file()]
    assert not missing, {name: documents.encode(EXAMPLES[name]).decode() for name in missing}


@names
def test_the_examples_leave_no_field_at_its_default(name: str) -> None:
    record = EXAMPLES[name]
    written = json.loads(documents.encode(record))
    assert set(written) == {field.encode_name for field in msgspec.structs.fields(record)}


@names
def test_the_golden_file_is_read_as_it_always_was(name: str) -> None:
    """A golden file is what some device in the field sends or expects: it may be added to, never edited.

    When a record has grown, the old file stays and must still be read; a new one, `name.2.json`, is added.
    """
    kind = type(EXAMPLES[name])
    for path in sorted(GOLDEN.glob(f"{name}.json")) + sorted(GOLDEN.glob(f"{name}.[0-9]*.json")):
        written = json.loads(path.read_bytes())
        record = documents.decode(kind, path.read_bytes())
        again = json.loads(documents.encode(record))
        assert {key: again[key] for key in written} == written
    assert record == EXAMPLES[name]


@names
def test_round_trip(name: str) -> None:
    record = EXAMPLES[name]
    assert documents.decode(type(record), documents.encode(record)) == record
    if not isinstance(record, (documents.RpcRequest, documents.RpcResponse)):
        plain = documents.to_builtins(record)
        assert documents.from_builtins(type(record), json.loads(json.dumps(plain))) == record


@names
def test_unknown_fields_are_ignored(name: str) -> None:
    record = EXAMPLES[name]

    def grow(value: Any) -> Any:
        if isinstance(value, dict) and "k" not in value:
            return {key: grow(item) for key, item in value.items()} | {"from_the_future": [1, {"a": None}]}
        return [grow(item) for item in value] if isinstance(value, list) else value

    grown = json.loads(documents.encode(record))
    if isinstance(record, (documents.RpcRequest, documents.RpcResponse)):
        grown["from_the_future"] = 1
    else:
        grown = grow(grown)
    assert documents.decode(type(record), json.dumps(grown, separators=(",", ":"))) == record


@names
def test_a_missing_field_or_a_wrong_type_is_named(name: str) -> None:
    record = EXAMPLES[name]
    written = json.loads(documents.encode(record))
    for field in msgspec.structs.fields(record):
        less = {key: value for key, value in written.items() if key != field.encode_name}
        if field.required:
            with pytest.raises(errors.ContractError, match=field.encode_name):
                documents.decode(type(record), json.dumps(less))
        else:
            documents.decode(type(record), json.dumps(less))
        if field.type is not msgspec.Raw:
            with pytest.raises(errors.ContractError, match=rf"{type(record).__name__}.*{field.encode_name}"):
                documents.decode(
                    type(record), json.dumps(written | {field.encode_name: [{"no": ["t", "his"]}]})
                )


@given(st.binary(max_size=300), st.sampled_from(sorted(KINDS, key=lambda kind: kind.__name__)))
def test_garbage_is_a_contract_error(data: bytes, kind: type[documents._Record]) -> None:
    try:
        documents.decode(kind, data)
    except errors.ContractError as error:
        assert kind.__name__ in str(error)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"boot":' * 20_000, '{"boot":"\ud800"}'])
def test_deep_and_broken_json_is_a_contract_error(text: str) -> None:
    with pytest.raises(errors.ContractError):
        documents.decode(documents.Stored, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("over", [0, 1, 1000 * documents.MAX_MESSAGE_BYTES])
def test_the_size_is_judged_first(over: int) -> None:
    data = documents.encode(_STORED)
    data += b" " * (documents.MAX_MESSAGE_BYTES - len(data) + over)
    if over:
        with pytest.raises(errors.ContractError, match="over the limit") as caught:
            documents.decode(documents.Stored, data)
        assert caught.value.reason == "too_large"
    else:
        assert documents.decode(documents.Stored, data) == _STORED


@pytest.mark.parametrize("value", [-1, 2**53 + 1, 1.5, "1", None, True])
def test_counts_are_counts(value: object) -> None:
    with pytest.raises(errors.ContractError, match="seq"):
        documents.decode(documents.Report, json.dumps(json.loads(documents.encode(_REPORT)) | {"seq": value}))


@pytest.mark.parametrize(("length", "fits"), [(256, True), (257, False), (256_000, False)])
def test_names_are_bounded(length: int, fits: bool) -> None:
    data = json.dumps({"boot": "x" * length, "seqs": []})
    if fits:
        assert documents.decode(documents.Stored, data).boot == "x" * length
    else:
        with pytest.raises(errors.ContractError):
            documents.decode(documents.Stored, data)


@given(st.permutations([("a", "1"), ("b", "2"), ("c", "1")]))
def test_the_digest_of_a_bundle_knows_names_and_contents_not_order_or_size(
    files: list[tuple[str, str]],
) -> None:
    refs = [documents.FileRef(path=name, sha256=digit * 64, size=ord(name)) for name, digit in files]
    digest = documents.bundle_digest(refs)
    assert digest == documents.bundle_digest(sorted(refs, key=lambda item: item.path))
    assert (
        digest == "35d4fb872bce0c04b0953faa5cc8e9e7dd15166ba9f049e407d6a533101623a2"
    )  # devices in the field have it
    changed = [msgspec.structs.replace(refs[0], sha256="3" * 64), *refs[1:]]
    renamed = [msgspec.structs.replace(refs[0], path="z"), *refs[1:]]
    assert len({digest, documents.bundle_digest(changed), documents.bundle_digest(renamed)}) == 3


def refused(**changes: Any) -> str:
    with pytest.raises(errors.ContractError, match="the install is refused") as caught:
        documents.check_install(msgspec.structs.replace(_DEPLOYMENT, **changes))
    return str(caught.value)


def file(path: str, size: int = 1) -> documents.FileRef:
    return documents.FileRef(path=path, sha256="0" * 64, size=size)


def test_the_limits_of_an_install() -> None:
    documents.check_install(_DEPLOYMENT)
    many = tuple(file(f"f{number}") for number in range(64))
    documents.check_install(msgspec.structs.replace(_DEPLOYMENT, files=many, entry="f0"))
    assert "at most 64" in refused(files=(*many, file("more")), entry="f0")
    assert "twice" in refused(files=(_FILE, file("MODEL.onnx")))
    largest = documents.MAX_FILE_BYTES
    documents.check_install(msgspec.structs.replace(_DEPLOYMENT, files=(file("model.onnx", largest),)))
    assert "over" in refused(files=(file("model.onnx", largest + 1),))
    assert "together" in refused(files=(file("model.onnx", largest), file("b", largest), file("c")))
    assert "SHA-256" in refused(files=(msgspec.structs.replace(_FILE, sha256="AB" * 32),))
    assert "names no model" in refused(model=None)
