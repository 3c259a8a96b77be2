"""Everything the device side refuses, by whose fault it is.

EdgeflowError
├── ContractError      a message, document or topic breaks the wire contract
│   └── SignatureError a document is not signed by a key that this device trusts
├── InputError         a caller's request cannot be served as sent (HTTP 400)
├── ModelError         a model cannot be loaded or run
├── ConfigError        a setting is missing or wrong
├── TransferError      a file or an answer could not be fetched; trying again may help
└── StateError         the device's own state folder is in use, full or damaged
"""

from __future__ import annotations


class EdgeflowError(Exception):
    """Base of all errors of the device side.

    `reason` is a stable word for machines (reports, metrics); the text says what to do next.
    """

    reason = "error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class ContractError(EdgeflowError):
    """A message, document or topic breaks the wire contract."""

    reason = "contract"


class SignatureError(ContractError):
    """A document is not signed by a key that this device trusts."""

    reason = "signature"


class InputError(EdgeflowError):
    """A caller's request cannot be served as sent."""

    reason = "bad_input"


class ModelError(EdgeflowError):
    """A model cannot be loaded or run."""

    reason = "model"


class ConfigError(EdgeflowError):
    """A setting is missing or wrong."""

    reason = "config"


class TransferError(EdgeflowError):
    """A file or an answer could not be fetched; `retry` says whether trying again may help."""

    reason = "transfer"

    def __init__(
        self, message: str, *, reason: str | None = None, retry: bool = True, status: int = 0
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry = retry
        self.status = status


class StateError(EdgeflowError):
    """The device's own state folder is in use, full or damaged."""

    reason = "state"
