"""MLflow's scoring protocol: its own client unchanged, and answers held against its own server's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import mlflow.onnx
import mlflow.pyfunc
import numpy as np
import onnx
import pandas as pd
import pytest
from mlflow.deployments import PredictionsResponse
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from edgeflow_agent import steps, version
from edgeflow_agent.wire.documents import Column, Interface
from tests.agent.conftest import failing, linear, model_bytes
from tests.agent.served import Client, Served

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
COLUMNS = Interface(columns=tuple(Column(name=name) for name in NAMES))
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3], [7.7, 3.0, 6.1, 2.3]]


def iris(*, zipmap: bool) -> bytes:
    rows, labels = load_iris(return_X_y=True)
    fitted = LogisticRegression(max_iter=500).fit(rows, labels)
    model = to_onnx(fitted, rows[:1].astype(np.float32), options={"zipmap": zipmap})
    return bytes(model.SerializeToString())


def two_columns() -> bytes:
    """s = a + b, of one number per row, and which of them is larger."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Greater", ["a", "b"], ["g"])],
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "ab"],
        [
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [None]),
            helper.make_tensor_value_info("g", TensorProto.BOOL, [None]),
        ],
    )
    return model_bytes(graph)


class Oracle:
    """MLflow's own scoring server for the same model, without its socket."""

    def __init__(self, data: bytes, folder: Path, signature: Any = None) -> None:
        mlflow.onnx.save_model(onnx.load_from_string(data), folder, signature=signature)
        self._model = mlflow.pyfunc.load_model(str(folder))

    def answer(self, body: str, kind: str) -> tuple[int, Any]:
        schema = self._model.metadata.get_input_schema()
        try:
            result = scoring_server.invocations(body, kind, self._model, schema)
        except MlflowException as error:
            return error.get_http_status_code(), json.loads(error.serialize_as_json())
        return result.status, json.loads(result.response) if result.status == 200 else result.response


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Interface, Oracle]]:
    folder = tmp_path_factory.mktemp("oracles")
    table = pd.DataFrame(ROWS, columns=NAMES)
    matrix = np.array(ROWS, np.float32)
    pair = pd.DataFrame({"a": [1.0], "b": [2.0]})
    return {
        name: (data, interface, Oracle(data, folder / name, signature))
        for name, data, interface, signature in (
            ("plain", linear(1, columns=4), Interface(), None),
            ("zipmap", iris(zipmap=True), Interface(), None),
            ("zipmap with columns", iris(zipmap=True), COLUMNS, infer_signature(table)),
            ("tensor", iris(zipmap=False), Interface(), infer_signature(matrix)),
            ("two inputs", two_columns(), Interface(), None),
            (
                "two inputs with columns",
                two_columns(),
                Interface(columns=(Column(name="a"), Column(name="b"))),
                infer_signature(pair.astype(np.float32)),
            ),
        )
    }


def csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False))


FRAME = pd.DataFrame(ROWS, columns=NAMES)
SHUFFLED = FRAME[NAMES[::-1]].assign(more=1.0)
PAIR = pd.DataFrame({"b": [1.5, 2.0, -1.0], "a": [1.0, 2.5, 3.0]})
MATRIX = ["plain", "zipmap", "zipmap with columns"]
TWO = ["two inputs", "two inputs with columns"]
JSON, CSV = "application/json", "text/csv"
SAME = [
    *((model, json.dumps({"dataframe_split": FRAME.to_dict("split")}), JSON) for model in MATRIX),
    *((model, json.dumps({"dataframe_records": FRAME.to_dict("records")}), JSON) for model in MATRIX),
    *((model, csv(FRAME), CSV) for model in MATRIX),
    *((model, json.dumps({"inputs": ROWS}), JSON) for model in ["plain", "zipmap", "tensor"]),
    *((model, json.dumps({"instances": ROWS}), JSON) for model in ["plain", "zipmap", "tensor"]),
    ("plain", json.dumps({"inputs": {"x": ROWS}}), JSON),
    ("plain", json.dumps({"instances": [{"x": row} for row in ROWS]}), JSON),
    ("plain", json.dumps({"inputs": ROWS, "params": {"temperature": 1}}), JSON),
    ("plain", json.dumps({"inputs": ROWS, "params": None}), JSON),
    ("plain", json.dumps({"inputs": ROWS}), "application/json; charset=utf-8"),
    ("plain", json.dumps({"dataframe_split": {"data": ROWS}}), JSON),
    ("zipmap with columns", json.dumps({"dataframe_split": SHUFFLED.to_dict("split")}), JSON),
    ("zipmap with columns", json.dumps({"dataframe_records": SHUFFLED.to_dict("records")}), JSON),
    ("zipmap with columns", csv(SHUFFLED), CSV),
    ("zipmap with columns", json.dumps({"inputs": FRAME.to_dict("list")}), JSON),
    ("zipmap with columns", json.dumps({"inputs": FRAME.to_dict("records")}), JSON),
    ("zipmap with columns", json.dumps({"inputs": FRAME.to_dict("records")[0]}), JSON),
    *((model, json.dumps({"dataframe_split": PAIR.to_dict("split")}), JSON) for model in TWO),
    *((model, json.dumps({"dataframe_records": PAIR.to_dict("records")}), JSON) for model in TWO),
    *((model, json.dumps({"inputs": PAIR.to_dict("list")}), JSON) for model in TWO),
    ("two inputs", csv(PAIR), CSV),
    ("two inputs", json.dumps({"instances": PAIR.to_dict("records")}), JSON),
]


def close(ours: Any, theirs: Any) -> bool:
    """Equal but for the last digits of a number, and for null where MLflow writes NaN."""
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    if isinstance(theirs, float):
        return ours is None if np.isnan(theirs) else bool(ours == pytest.approx(theirs, rel=1e-6))
    return bool(ours == theirs) and type(ours) is type(theirs)


@pytest.mark.parametrize(("model", "body", "kind"), SAME, ids=[f"{m}-{b[:30]}" for m, b, _ in SAME])
def test_the_answer_is_that_of_mlflows_own_server(
    served: Served, oracles: dict[str, Any], model: str, body: str, kind: str
) -> None:
    data, declared, oracle = oracles[model]
    served.load(data, declared=declared)
    expected = oracle.answer(body, kind)
    status, _, answer = Client(served).post("/invocations", body.encode(), Content_Type=kind)
    assert expected[0] == 200, expected
    assert status == 200, answer
    assert close(json.loads(answer), expected[1]), (json.loads(answer), expected[1])


BAD = [
    ("plain", "", JSON),
    ("plain", "{", JSON),
    ("plain", "[[1, 2, 3, 4]]", JSON),
    ("plain", "5", JSON),
    ("plain", "{}", JSON),
    ("plain", json.dumps({"rows": ROWS}), JSON),
    ("plain", json.dumps({"inputs": ROWS, "instances": ROWS}), JSON),
    ("plain", json.dumps({"inputs": [[1, 2]]}), JSON),
    ("plain", json.dumps({"inputs": [["a", "b", "c", "d"]]}), JSON),
    ("plain", json.dumps({"dataframe_split": ROWS}), JSON),
    ("plain", json.dumps({"dataframe_split": {"columns": NAMES}}), JSON),
    ("plain", json.dumps({"dataframe_split": {"columns": NAMES, "data": [[1, 2]]}}), JSON),
    ("plain", json.dumps({"dataframe_records": {"a": 1}}), JSON),
    ("plain", "", CSV),
    ("plain", "a,b,c,d\n1,2,3,x", CSV),
    ("zipmap with columns", json.dumps({"dataframe_records": [{"sepal_length": 1.0}]}), JSON),
    ("two inputs", json.dumps({"dataframe_records": [{"a": 1.0}]}), JSON),
    ("two inputs", json.dumps({"inputs": [[1.0, 2.0]]}), JSON),
]


@pytest.mark.parametrize(("model", "body", "kind"), BAD, ids=[f"{m}-{b[:40]}" for m, b, _ in BAD])
def test_what_mlflow_refuses_is_refused_in_its_shape(
    served: Served, oracles: dict[str, Any], model: str, body: str, kind: str
) -> None:
    data, declared, oracle = oracles[model]
    served.load(data, declared=declared)
    status, expected = oracle.answer(body, kind)
    assert status >= 400
    status, _, answer = Client(served).post("/invocations", body.encode(), Content_Type=kind)
    ours = json.loads(answer)
    assert (status, ours.keys()) == (400, {"error_code", "message"})
    assert ours["error_code"] == "BAD_REQUEST"
    assert expected.keys() >= ours.keys()


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        ("a,b\n1,2,3", CSV, "row 2"),
        ('a,b\n1,"2', CSV, "not CSV"),
        ("a,b\n1_0,2", CSV, "1_0"),
        ('{"dataframe_split": {"columns": [["a"], ["b"]], "data": [[1, 2]]}}', JSON, "columns"),
        ('{"dataframe_split": {"columns": ["a", "b"], "data": [[1], [2]]}}', JSON, "2 values"),
        ('{"dataframe_split": {"data": {"a": 1}}}', JSON, "rows"),
        ('{"dataframe_split": {"data": [[1, 2, 3]]}}', JSON, "3 values"),
        ('{"dataframe_records": [1]}', JSON, "objects"),
        ('{"inputs": [[1, 2]], "params": []}', JSON, "params"),
        ('{"instances": [{"a": 1, "b": 2}, {"a": 1}]}', JSON, "the same inputs"),
    ],
)
def test_refusals_say_what_is_wrong(served: Served, body: str, kind: str, told: str) -> None:
    served.load(two_columns())
    status, _, answer = Client(served).post("/invocations", body.encode(), Content_Type=kind)
    assert (status, told in json.loads(answer)["message"]) == (400, True), answer


def test_mlflows_client(served: Served) -> None:
    served.load(iris(zipmap=True), declared=COLUMNS)
    host, port = served.address.split(":")
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready(timeout=5)
    assert client.get_version() == version.VERSION
    for data in (FRAME, SHUFFLED):
        answer = client.invoke(data)
        assert isinstance(answer, PredictionsResponse)
        table = answer.get_predictions()
        assert list(table.columns) == ["output_label", "output_probability"]
        assert table["output_label"].tolist() == [0, 1, 2]
    served.load(linear(2))
    for data in (np.array(ROWS), ROWS, pd.DataFrame(np.array(ROWS))):
        table = client.invoke(data, params={"ignored": 1}).get_predictions()
        assert np.ravel(table["y"].tolist()) == pytest.approx(np.sum(ROWS, axis=1) * 2, rel=1e-6)
    with pytest.raises(Exception, match="error code 400"):
        client.invoke(np.ones((2, 3)))
    missing = client.invoke(pd.DataFrame([[1.0, None, 2.0, 3.0]], columns=NAMES)).get_predictions()
    assert missing["y"].isna().all()


def test_an_input_may_be_called_inputs(served: Served) -> None:
    served.load(linear(1, input_name="inputs"))
    client = Client(served)
    for value in (ROWS, {"inputs": ROWS}, [{"inputs": row} for row in ROWS]):
        status, _, answer = client.post("/invocations", json.dumps({"inputs": value}).encode())
        assert (status, len(json.loads(answer)["predictions"]["y"])) == (200, 3)


def test_a_strange_table_of_outputs(served: Served) -> None:
    """MLflow fails where outputs have unequally many values; here a row holds what belongs to it."""
    served.load(iris(zipmap=False), declared=COLUMNS)
    body = json.dumps({"dataframe_split": FRAME.to_dict("split")}).encode()
    status, _, answer = Client(served).post("/invocations", body, Content_Type=JSON)
    predictions = json.loads(answer)["predictions"]
    assert status == 200
    assert [item["label"] for item in predictions] == [0, 1, 2]
    assert [len(item["probabilities"]) for item in predictions] == [3, 3, 3]


def test_values_of_csv_follow_the_inputs(served: Served) -> None:
    kinds = {"n": TensorProto.INT64, "s": TensorProto.STRING, "f": TensorProto.FLOAT, "b": TensorProto.BOOL}
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [name.upper()]) for name in kinds],
        "mixed",
        [helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in kinds.items()],
        [helper.make_tensor_value_info(name.upper(), kind, [None, 1]) for name, kind in kinds.items()],
    )
    served.load(model_bytes(graph))
    client = Client(served)
    body = '\ufeffb,s,n,f,other\r\ntrue,"a,""1""",-5,1e3,x\r\nFalse,,+7,NA,y\r\n\r\n'.encode()
    status, _, answer = client.post("/invocations", body, Content_Type=CSV)
    assert (status, json.loads(answer)["predictions"]) == (
        200,
        [{"N": -5, "S": 'a,"1"', "F": 1000.0, "B": True}, {"N": 7, "S": "", "F": None, "B": False}],
    )
    for wrong in ("true,a,1.5,1", "yes,a,1,1", "true,a,1,x", "true,a,,1", "true,a,²,1"):
        body = f"b,s,n,f\n{wrong}".encode()
        assert client.post("/invocations", body, Content_Type=CSV)[0] == 400


def test_pages(served: Served, tmp_path: Path) -> None:
    served.load(linear(1))
    client = Client(served)
    for path in ("/ping", "/health"):
        assert client.ask("GET", path)[0] == 200
    assert client.ask("GET", "/ping")[2] == b"\n"
    assert client.ask("GET", "/version")[2].decode() == version.VERSION
    (tmp_path / "empty").mkdir()
    with Served(tmp_path / "empty") as empty:
        client = Client(empty)
        assert client.ask("GET", "/ping")[0] == 503
        status, headers, answer = client.post("/invocations", b'{"inputs": [1]}')
        assert (status, headers["Retry-After"]) == (503, "5")
        assert json.loads(answer)["error_code"] == "TEMPORARILY_UNAVAILABLE"


def test_other_errors_have_mlflows_shape(served: Served) -> None:
    served.load(failing())
    client = Client(served)
    for headers, body, status, code in (
        ({"Content-Type": "application/vnd.apache.parquet"}, b"PAR1", 415, "BAD_REQUEST"),
        ({"Content-Encoding": "br"}, b"x", 415, "BAD_REQUEST"),
        ({}, b'{"inputs": [5, 0, 0, 0]}', 500, "INTERNAL_ERROR"),
    ):
        got, _, answer = client.ask("POST", "/invocations", body, headers)
        assert (got, json.loads(answer)["error_code"]) == (status, code)
    status, headers, answer = client.ask("GET", "/invocations")
    assert (status, headers["Allow"]) == (405, "OPTIONS, POST")
    assert json.loads(answer)["error_code"] == "BAD_REQUEST"


STEPS = steps.load(
    [
        {"step": "category", "field": "colour", "values": ["red", "green"], "unknown": "other"},
        {"step": "columns", "names": ["size", "colour"], "defaults": {"size": None}, "extra": "ignore"},
        {"step": "feed", "input": "x"},
        {"step": "threshold", "output": "y", "threshold": 3, "labels": ["small", "large"], "name": "verdict"},
    ]
)
COLOURED = pd.DataFrame({"colour": ["red", "green", "blue"], "more": 1, "size": [1.5, 2.5, None]})
VERDICTS = [
    {"y": [1.5], "verdict": {"label": "small", "score": 1.5}},
    {"y": [3.5], "verdict": {"label": "large", "score": 3.5}},
]


@pytest.fixture
def stepped(served: Served) -> Client:
    served.slot.swap(dataclasses.replace(served.load(linear(1, columns=2)), steps=STEPS))
    return Client(served)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (json.dumps({"dataframe_split": COLOURED[:2].to_dict("split")}), JSON),
        (json.dumps({"dataframe_records": COLOURED[:2].to_dict("records")}), JSON),
        (csv(COLOURED[:2]), CSV),
    ],
)
def test_a_table_goes_through_the_steps_of_a_model(stepped: Client, body: str, kind: str) -> None:
    status, _, answer = stepped.ask("POST", "/invocations", body.encode(), {"Content-Type": kind})
    assert (status, json.loads(answer)) == (200, {"predictions": VERDICTS})


@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_what_is_no_table_comes_to_the_steps_as_it_was_sent(stepped: Client, form: str) -> None:
    body = json.dumps({form: {"colour": "green", "size": 2.5}}).encode()
    status, _, answer = stepped.ask("POST", "/invocations", body)
    assert (status, json.loads(answer)) == (200, {"predictions": VERDICTS[1] | {"y": [[3.5]]}})


def test_what_a_table_lacks_is_missing_to_the_steps(stepped: Client) -> None:
    for body, kind in (
        (json.dumps({"dataframe_split": COLOURED[2:].to_dict("split")}), JSON),  # Python's NaN
        (csv(COLOURED[2:]), CSV),
    ):
        status, _, answer = stepped.ask("POST", "/invocations", body.encode(), {"Content-Type": kind})
        (row,) = json.loads(answer)["predictions"]
        assert (status, row["y"]) == (200, [None])  # the default of size is NaN


def test_a_wrong_field_names_the_step(stepped: Client) -> None:
    body = json.dumps({"dataframe_records": [{"size": 1.0, "colour": 7}, {"size": "big", "colour": "red"}]})
    status, _, answer = stepped.ask("POST", "/invocations", body.encode())
    assert (status, json.loads(answer)["error_code"]) == (400, "BAD_REQUEST")
    assert "before[1] columns" in json.loads(answer)["message"]
