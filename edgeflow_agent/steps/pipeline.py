"""A model's steps as one object that any number of threads may share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from edgeflow_agent import errors
from edgeflow_agent.steps import answers, document, example
from edgeflow_agent.steps.flow import REQUEST, After, Before, Feed, Form
from edgeflow_agent.steps.images import DecodeImage
from edgeflow_agent.steps.inputs import Constant, Field, Give, State, mismatch
from edgeflow_agent.steps.place import FILE
from edgeflow_agent.steps.signals import Frame
from edgeflow_agent.wire.documents import TensorSpec

STATE = "state"
_NUMPY_WORDS = {"float": "float32", "double": "float64"}

T = TypeVar("T")


class Pipeline:
    """The steps of one model. Immutable."""

    def __init__(self, before: Sequence[Before] = (), after: Sequence[After] = ()) -> None:
        """Raise ModelError when the steps do not fit each other."""
        self._before = tuple(before)
        self._after = tuple(after)
        self._feeds = _follow(self._before)
        self._states = tuple(step for step in self._before if isinstance(step, State))
        # Nothing but tensors as the caller sends them, with their batch.
        self._takes_tensors = all(isinstance(step, (Field, Give, Constant, State)) for step in self._before)
        self._state_names = {step.input for step in self._states} | {
            step.state for step in self._before if isinstance(step, Frame) and step.context
        }
        self.takes_input = bool(self._before)
        """`before` makes the feed; else the request is read as it is without steps."""
        self.takes_image = bool(self._before) and isinstance(self._before[0], DecodeImage)
        """... and does so from the bytes of a JPEG or PNG."""
        self.gives_answer = bool(self._after or self._state_names)
        """`after` makes the answer; else the outputs are answered as they are."""

    # ---- running

    def before(self, value: Any) -> Feed:
        """The feed of the graph from a decoded JSON value, or from the bytes of an image or a raw body.
        Raise InputError that names the step and what is wrong."""
        value, state = self._divided(value)
        feed = Feed(state)
        feed.one = not self._takes_tensors
        current = value
        for index, step in enumerate(self._before):
            try:
                current = step.run(current, feed)
            except errors.InputError as error:
                raise errors.InputError(f"before[{index}] {step.word}: {error}") from error
            if isinstance(step, Give):
                current = value
        return feed

    def after(self, outputs: Mapping[str, npt.NDArray[Any]], feed: Feed | None = None) -> Any:
        """The answer, ready for JSON. `feed` is what `before` gave for this very request: boxes go back to
        its image through it, and state comes from it. Raise ModelError when the outputs are not what the
        steps were declared for."""
        if feed is None:
            feed = Feed()
            feed.one = False
            if self._before:
                raise TypeError("after() of a model with steps before it takes the feed that before() gave")
        answer: dict[str, Any] = dict(outputs)
        state = {name: answers.plain(value) for name, value in feed.carried.items()}
        for kept in self._states:
            if kept.output not in answer:
                raise errors.ModelError(f"the model gave no {kept.output!r}", reason="steps")
            state[kept.input] = answers.plain(answer.pop(kept.output))
        for index, step in enumerate(self._after):
            try:
                step.run(answer, feed)
            except errors.ModelError as error:
                raise errors.ModelError(f"after[{index}] {step.word}: {error}", reason="steps") from error
        answer = answers.plain(answer)
        if self._state_names:
            answer[STATE] = state
        return answer

    def _divided(self, value: Any) -> tuple[Any, dict[str, Any]]:
        """The request without its state, and the state."""
        if not self._state_names or not isinstance(value, dict) or STATE not in value:
            return value, {}
        state = value[STATE]
        if state is None:
            state = {}
        if not isinstance(state, dict):
            raise errors.InputError("'state' must be the object that came with the answer before")
        if odd := [name for name in state if name not in self._state_names]:
            raise errors.InputError(
                f"unknown state {str(odd[0])[:60]!r}; the model keeps {', '.join(sorted(self._state_names))}"
            )
        return {name: item for name, item in value.items() if name != STATE}, state

    def example(self) -> tuple[str, str]:
        """Content type and body of a request to try; a body that begins with @ stands for a file."""
        return example.example(self._before)

    # ---- checking

    def check(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Raise ModelError, which names the step, when the steps are not made for this graph."""
        if self._before:
            self._check_inputs(inputs)
        forms = {spec.name: _form(spec) for spec in outputs}
        for kept in self._states:
            _told(self._where(kept), lambda kept=kept: _take(forms, kept))  # type: ignore[misc]
        for index, step in enumerate(self._after):
            _told(f"after[{index}] {step.word}", lambda step=step: step.fit(forms))  # type: ignore[misc]
        if self._state_names and STATE in forms:
            raise _unfit(f"an output is called {STATE!r}, as the model's state is: rename it (step rename)")

    def _check_inputs(self, inputs: Sequence[TensorSpec]) -> None:
        known = {spec.name: spec for spec in inputs}
        for name, (where, form) in self._feeds.items():
            if name not in known:
                raise _unfit(f"{where}: the graph has no input {name!r}; it has {', '.join(known) or 'none'}")
            wanted = _form(known[name])
            if problem := mismatch(form, wanted.dtype, wanted.shape):
                raise _unfit(f"{where}: for the input {name!r} it {problem}")
        if missing := [name for name in known if name not in self._feeds]:
            raise _unfit(f"nothing is given to the input {missing[0]!r}: add a step feed, constant or state")

    def check_installed(self) -> None:
        """Raise ModelError when a step needs what is not installed here."""
        for index, step in enumerate(self._before):
            if isinstance(step, DecodeImage) and importlib.util.find_spec("PIL") is None:
                raise _unfit(
                    f"before[{index}] {step.word} needs Pillow on this device: "
                    "pip install 'edgeflow-agent[image]'"
                )

    def _where(self, step: Before) -> str:
        return f"before[{self._before.index(step)}] {step.word}"

    # ---- writing

    def encode(self) -> bytes:
        """The document, as `steps.json` holds it."""
        return document.encode(self._before, self._after)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and self.encode() == other.encode()

    def __hash__(self) -> int:
        return hash(self.encode())

    def __repr__(self) -> str:
        words = [*(step.word for step in self._before), "(graph)", *(step.word for step in self._after)]
        return f"<Pipeline {' > '.join(words)}>"


def load(source: str | os.PathLike[str] | bytes | Mapping[str, Any] | Sequence[Any] | Pipeline) -> Pipeline:
    """A pipeline from the path of a `steps.json` (or its folder), its bytes, the document as a dict, or a
    plain list of steps. Raise ModelError that names the step and what is wrong with it."""
    if isinstance(source, Pipeline):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            with (path / FILE if path.is_dir() else path).open("rb") as file:
                source = file.read(document.MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise _unfit(f"cannot be read: {error}") from error
    return Pipeline(*document.parse(source))


def _follow(steps: Sequence[Before]) -> dict[str, tuple[str, Form]]:
    """What each input of the graph is given, and by which step."""
    feeds: dict[str, tuple[str, Form]] = {}
    carried: set[str] = set()
    current, last = REQUEST, ""
    for index, step in enumerate(steps):
        where = f"before[{index}] {step.word}"
        form = _told(where, lambda step=step, current=current: step.form(current))  # type: ignore[misc]
        if isinstance(step, (Give, Constant, State)):
            if step.input in feeds:
                raise _unfit(f"{where}: the input {step.input!r} is given a value twice")
            feeds[step.input] = (where, form)
            current, last = (REQUEST, "") if isinstance(step, Give) else (current, last)
        else:
            current, last = form, where
        if isinstance(step, State) or (isinstance(step, Frame) and step.context):
            name = step.input if isinstance(step, State) else step.state
            if name in carried:
                raise _unfit(f"{where}: there is a state {name!r} already")
            carried.add(name)
    if last:
        raise _unfit(f"{last}: what it gives goes nowhere; end with the step feed")
    return feeds


def _form(spec: TensorSpec) -> Form:
    """The form of an input or output of a graph, which says `tensor(float)` of float32."""
    if not spec.dtype.startswith("tensor("):
        return Form(kind="sequence")
    word = spec.dtype.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in spec.shape)
    return Form(kind="tensor", dtype=_NUMPY_WORDS.get(word, word), shape=shape or None)


def _take(forms: dict[str, Form], kept: State) -> None:
    """The output that holds the next state is no part of the answer; it must be fit to come back."""
    if kept.output not in forms:
        raise ValueError(f"the graph has no output {kept.output!r}; it has {', '.join(forms) or 'none'}")
    given = forms.pop(kept.output)
    if problem := mismatch(given, kept.dtype, kept.shape):
        raise ValueError(f"the output {kept.output!r} {problem.replace('the graph', 'the state')}")


def _told(where: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except ValueError as error:
        raise _unfit(f"{where}: {error}") from error


def _unfit(message: str) -> errors.ModelError:
    return errors.ModelError(f"{FILE}: {message}", reason="steps")
