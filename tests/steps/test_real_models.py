"""Three models out of public wheels, served by an agent from their examples, against what the packages
themselves answer to the same input."""

from __future__ import annotations

import json
import sys
import types
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal

from edgeflow_agent import errors, steps
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.inference import engine
from edgeflow_agent.runtime.standalone import Standalone
from tests.steps.conftest import pixels, png

Load = Callable[[str], ModuleType]
Ask = Callable[..., Any]
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
BODY = {"Content-Type": "application/octet-stream"}
ROOT = Path(__file__).parents[2]


def serve(folder: Path, model: Path, declared: list[dict[str, Any]]) -> Iterator[Ask]:
    """A function that asks an agent which serves this folder."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model.read_bytes())
    (folder / "steps.json").write_bytes(steps.load(declared).encode())
    agent = Standalone(AgentConfig(port=0, state_dir=folder / "state"), str(folder))
    agent.start()

    def ask(body: bytes, headers: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(f"{agent.url}/infer", data=body, headers=headers or {})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())["result"]

    yield ask
    agent.stop()


# ---- magika: bytes to a type


@pytest.fixture(scope="module")
def ask_type(example: Load, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    script = example("file_type")
    yield from serve(tmp_path_factory.mktemp("type"), script.model(wheels), script.steps(wheels))


def files() -> dict[str, bytes]:
    """Files of many kinds and sizes, real ones and made-up ones."""
    rng = np.random.default_rng(3)
    found = {
        str(path.relative_to(ROOT)): path.read_bytes()
        for path in (
            *ROOT.glob("*.*"),
            *(ROOT / "docs").glob("*.md"),
            *(ROOT / "edgeflow_agent").glob("*.py"),
        )
        if path.is_file() and path.stat().st_size
    }
    found["portrait"] = PORTRAIT.read_bytes()
    found["png"] = png(pixels(20, 20))
    found["program"] = Path(sys.executable).read_bytes()[:100_000]
    found["white space around"] = b"  \n\n" + (ROOT / "setup.cfg").read_bytes() + b"\n" * 5000
    found["json"] = json.dumps({"key": list(range(300))}).encode()
    found["sql"] = b"SELECT name, count(*) FROM devices WHERE site = 'lyon' GROUP BY name;\n" * 3
    found["prose"] = b"It was a bright cold day in April, and the clocks were striking thirteen.\n"
    found["few bytes"] = b"12345678"
    found["letters"] = b"a b c d e f g h"
    for size in (8, 100, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 20_000):
        found[f"noise of {size}"] = rng.bytes(size)
        found[f"text of {size}"] = bytes(
            rng.choice(np.frombuffer(b"etaoin shrdlu\n", np.uint8), size)
        ).strip()
    return {name: content for name, content in found.items() if len(content.strip()) >= 8}


def test_file_types_are_magikas(ask_type: Ask) -> None:
    from magika import Magika

    package = Magika()
    kinds = set()
    for name, content in files().items():
        wanted = package.identify_bytes(content).prediction
        found = ask_type(content, BODY)["type"]
        assert found["label"] == str(wanted.output.label), name
        assert found["confidence"] == pytest.approx(wanted.score, abs=1e-6), name
        kinds.add(found["label"])
    assert len(kinds) >= 8


def test_magikas_doubts_are_told_as_it_tells_them(example: Load, wheels: Path) -> None:
    """Every label at every confidence that decides, without a file that would bring it about."""
    from magika import Magika

    package = Magika()
    script = example("file_type")
    pipeline = steps.load(script.steps(wheels))
    feed = pipeline.before(b"12345678")
    labels = script.steps(wheels)[2]["labels"]
    assert labels == package._target_labels_space
    for index, label in enumerate(labels):
        for confidence in (0.3, 0.4999, 0.5, 0.7499, 0.76, 0.8999, 0.91, 0.949, 0.96, 1.0):
            scores = np.zeros((1, len(labels)), np.float32)
            scores[0, index] = confidence
            found = pipeline.after({"target_label": scores}, feed)["type"]
            wanted, _ = package._get_output_label_from_dl_label_and_score(
                package._model_config.target_labels_space[index], float(scores[0, index])
            )
            assert found["label"] == str(wanted), (label, confidence)


def test_files_that_magika_names_without_its_graph_are_refused(example: Load, wheels: Path) -> None:
    pipeline = steps.load(example("file_type").steps(wheels))
    for content in (b"", b"1234567", b" " * 5000 + b"12345678", b"      1234567"):
        with pytest.raises(errors.InputError, match="it takes 8"):
            pipeline.before(content)


# ---- Silero VAD: sound with state


@pytest.fixture(scope="module")
def ask_voice(example: Load, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    script = example("voice")
    yield from serve(tmp_path_factory.mktemp("voice"), script.model(wheels), script.steps())


class _Tensor(np.ndarray):
    """As much of a PyTorch tensor as Silero's own wrapper uses."""

    def dim(self) -> int:
        return self.ndim

    def unsqueeze(self, axis: int) -> Any:
        return np.expand_dims(self, axis)

    def float(self) -> Any:
        return self.astype(np.float32)

    def numpy(self) -> npt.NDArray[Any]:
        return np.asarray(self)


def tensor(values: Any) -> Any:
    return np.asarray(values, dtype=np.float32).view(_Tensor)


@pytest.fixture(scope="module")
def silero(example: Load, wheels: Path) -> Any:
    """The package's own `OnnxWrapper`, from its own source, with NumPy in PyTorch's place."""
    model = example("voice").model(wheels)
    torch: Any = types.ModuleType("torch")
    torch.Tensor = _Tensor
    torch.zeros = lambda *shape: tensor(np.zeros(shape[0] if isinstance(shape[0], tuple) else shape))
    torch.cat = lambda parts, dim: tensor(np.concatenate(parts, axis=dim))
    torch.from_numpy = tensor
    torch.device = str
    torch.no_grad = lambda: lambda function: function
    source = model.parents[1] / "utils_vad.py"
    namespace: dict[str, Any] = {"__name__": "silero_vad.utils_vad"}
    kept = sys.modules.get("torch")
    sys.modules["torch"] = torch
    try:
        exec(compile(source.read_text(), str(source), "exec"), namespace)
    finally:
        if kept is None:
            del sys.modules["torch"]
        else:
            sys.modules["torch"] = kept
    return namespace["OnnxWrapper"](str(model), force_onnx_cpu=True)


RATE = 16000


def vowels() -> npt.NDArray[np.float64]:
    """Two seconds of five vowels in turn: pulses of a throat through the resonances of a mouth."""
    time = np.arange(2 * RATE) / RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 1.7 * time) + 5 * np.sin(2 * np.pi * 5 * time)
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0)
    pulses += 0.02 * np.random.default_rng(1).normal(size=time.size)
    mouths = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)]
    spoken = []
    for index, syllable in enumerate(np.split(pulses, 10)):
        for resonance, width in zip(mouths[index % 5], (80, 100, 140), strict=True):
            radius, angle = np.exp(-np.pi * width / RATE), 2 * np.pi * resonance / RATE
            poles = [1, -2 * radius * np.cos(angle), radius**2]
            syllable = scipy.signal.lfilter([sum(poles)], poles, syllable)
        spoken.append(syllable * np.sqrt(np.hanning(syllable.size)))
    sound = np.concatenate(spoken)
    return 0.8 * sound / np.abs(sound).max()


def sounds() -> dict[str, npt.NDArray[np.float32]]:
    """Two seconds each."""
    rng = np.random.default_rng(1)
    vowel = vowels()
    made = {
        "silence": np.zeros_like(vowel),
        "noise": rng.normal(size=vowel.size) * 0.1,
        "tone": 0.3 * np.sin(2 * np.pi * 440 * np.arange(vowel.size) / RATE),
        "vowels": vowel,
        "vowels in noise": vowel + rng.normal(size=vowel.size) * 0.01,
        "silence, then vowels": np.concatenate([np.zeros(8000), vowel])[: vowel.size],
    }
    return {name: values.astype(np.float32) for name, values in made.items()}


def test_voices_are_heard_as_silero_hears_them(ask_voice: Ask, silero: Any) -> None:
    heard = {}
    for name, sound in sounds().items():
        silero.reset_states()
        state, scores = None, []
        for start in range(0, len(sound), 512):
            chunk = np.zeros(512, np.float32)
            chunk[: len(sound[start : start + 512])] = sound[start : start + 512]
            wanted = float(silero(tensor(chunk), 16000).squeeze())
            # The last chunk is shorter; Silero's own loop fills it up, here the step does.
            body = {"audio": sound[start : start + 512].tolist(), "state": state}
            answer = ask_voice(json.dumps(body).encode())
            found, state = answer["voice"], answer["state"]
            assert found["score"] == pytest.approx(wanted, abs=1e-6), (name, start)
            assert found["label"] == ("speech" if wanted >= 0.5 else "silence")
            scores.append(wanted)
        heard[name] = max(scores)
    assert max(heard["silence"], heard["noise"], heard["tone"]) < 0.5
    assert heard["vowels"] > 0.9


def test_two_callers_of_one_model_do_not_hear_each_other(ask_voice: Ask) -> None:
    first, second = sounds()["vowels"], sounds()["noise"]

    def listen(sound: npt.NDArray[np.float32], start: int, state: Any) -> Any:
        body = {"audio": sound[start : start + 512].tolist(), "state": state}
        return ask_voice(json.dumps(body).encode())

    alone, state = [], None
    for start in range(0, 5120, 512):
        answer = listen(first, start, state)
        alone.append(answer["voice"])
        state = answer["state"]
    turns, state, other = [], None, None
    for start in range(0, 5120, 512):
        answer, noise = listen(first, start, state), listen(second, start, other)
        turns.append(answer["voice"])
        state, other = answer["state"], noise["state"]
    assert turns == alone


# ---- nudenet: an image to boxes


@pytest.fixture(scope="module")
def ask_parts(example: Load, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    script = example("body_parts")
    yield from serve(tmp_path_factory.mktemp("parts"), script.model(wheels), script.steps())


def images() -> dict[str, tuple[bytes, str]]:
    portrait = cv2.imread(str(PORTRAIT))
    rng = np.random.default_rng(2)
    made = {
        "turned over": portrait[:, ::-1],
        "upside down": portrait[::-1],
        "wide": cv2.resize(portrait, (900, 300)),
        "high": cv2.resize(portrait, (200, 700)),
        "small": cv2.resize(portrait, (61, 83)),
        "large": cv2.resize(portrait, (2048, 2400), interpolation=cv2.INTER_CUBIC),
        "two": np.hstack([portrait, portrait[:, ::-1]]),
        "four": np.vstack([np.hstack([portrait] * 2), np.hstack([portrait[:, ::-1]] * 2)]),
        "cut off at the left": portrait[100:, 210:],
        "cut off above": portrait[200:, :],
        "cut off below": portrait[:280, :330],
        "dark": (portrait * 0.4).astype(np.uint8),
        "grainy": np.clip(portrait + rng.normal(0, 12, portrait.shape), 0, 255).astype(np.uint8),
        "exact size": cv2.resize(portrait, (320, 320)),
        "twice the size": cv2.resize(portrait, (640, 640)),
        "noise": pixels(240, 320),
    }
    found = {name: (cv2.imencode(".png", image)[1].tobytes(), "image/png") for name, image in made.items()}
    found["portrait"] = (PORTRAIT.read_bytes(), "image/jpeg")
    found["jpeg of two"] = (cv2.imencode(".jpg", made["two"])[1].tobytes(), "image/jpeg")
    alpha = np.dstack([portrait, np.full(portrait.shape[:2], 90, np.uint8)])
    found["with transparency"] = (cv2.imencode(".png", alpha)[1].tobytes(), "image/png")
    return found


def test_boxes_are_nudenets(ask_parts: Ask) -> None:
    from nudenet import NudeDetector

    package = NudeDetector()
    counts = {}
    for name, (content, kind) in images().items():
        wanted = package.detect(content)
        found = ask_parts(content, {"Content-Type": kind})["found"]
        assert [item["label"] for item in found] == [item["class"] for item in wanted], name
        for item, other in zip(found, wanted, strict=True):
            assert item["confidence"] == pytest.approx(other["score"], abs=1e-5), name
            # The package cuts off what is behind the point.
            assert [int(value) for value in item["box"]] == pytest.approx(other["box"], abs=1), name
        counts[name] = len(wanted)
    assert counts["portrait"] == 1
    assert counts["four"] >= 2
    assert counts["noise"] == 0
    assert sum(count > 0 for count in counts.values()) >= 10


def test_the_labels_of_the_example_are_the_packages(example: Load) -> None:
    import nudenet.nudenet

    assert vars(nudenet.nudenet)["__labels"] == example("body_parts").LABELS


def test_the_pixels_are_nudenets_to_the_last_bit(example: Load) -> None:
    import nudenet.nudenet

    pipeline = steps.load(example("body_parts").steps())
    for name, (content, _) in images().items():
        wanted = nudenet.nudenet._read_image(content, 320)[0]
        assert np.array_equal(pipeline.before(content)["images"], wanted), name


# ---- all three in a notebook


@pytest.mark.parametrize("name", ["file_type", "voice", "body_parts"])
def test_the_examples_fit_their_graphs(name: str, example: Load, wheels: Path) -> None:
    script = example(name)
    declared = script.steps(wheels) if name == "file_type" else script.steps()
    graph = engine.Engine(script.model(wheels))
    steps.load(declared).check(graph.inputs, graph.outputs)
