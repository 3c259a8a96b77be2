"""Asking the device itself whether now is a moment to exchange its model: a robot in motion says no."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable

from edgeflow_agent.runtime.interruption import Interruption

logger = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.05
# A silent device is taken for lost: one that waits says this often that it does.
_SAY_EVERY_S = 60.0


def wait_until_allowed(
    command: str, interruption: Interruption, say: Callable[[str], None], *, retry_s: float
) -> None:
    """Return when the command ends with exit code 0; until then run it every `retry_s`. `say` is told why
    it is waited, at once and then every minute. Raise when there is a reason not to go on."""
    words = shlex.split(command)
    if not words:
        return
    said, because = float("-inf"), ""
    while refusal := _refusal(words, interruption):
        if refusal != because or time.monotonic() - said >= _SAY_EVERY_S:
            said, because = time.monotonic(), refusal
            logger.info("the new model waits: %s", refusal)
            say(f"loaded, and waits to take over: agent.can_update {refusal}")
        interruption.wait(retry_s)


def _refusal(words: list[str], interruption: Interruption) -> str:
    """Why the device says no; empty when it says yes."""
    try:
        # A session of its own, so that whatever it starts ends with it.
        process = subprocess.Popen(  # noqa: S603 - what the device's own configuration says
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"cannot be run ({error})"
    try:
        deadline = time.monotonic() + _TIMEOUT_S
        while (code := process.poll()) is None:
            if time.monotonic() > deadline:
                return f"did not end within {_TIMEOUT_S:g} s"
            interruption.wait(_LOOK_EVERY_S)
        return "" if code == 0 else f"ended with exit code {code}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
