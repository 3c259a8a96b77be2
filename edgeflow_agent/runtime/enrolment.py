"""Turning an enrolment token into this device's identity."""

from __future__ import annotations

import logging
import platform
import secrets
import time
from datetime import UTC, datetime

from edgeflow_agent import errors, version
from edgeflow_agent.config import AgentConfig
from edgeflow_agent.link.http import DeviceApi, Server
from edgeflow_agent.store.folder import StateFolder
from edgeflow_agent.store.identity import Identity, IdentityFile, decode_root_key
from edgeflow_agent.wire import documents, signing, tokens, topics

logger = logging.getLogger(__name__)

_TRIES = 3


def enrol(config: AgentConfig, *, token: str, target: str, force: bool = False) -> Identity:
    """Enrol this device and keep its identity. Raise with what to do next when that is not possible.

    The request is kept before it is sent: when the answer is lost, the next attempt sends the same
    idempotency key and gets the same identity, so the token is not burnt.
    """
    topics.check_target_id(target)
    parsed = tokens.parse_token(token)
    if not config.server_url:
        raise errors.ConfigError("no server is given; add --server http://host:5000")
    server = Server(config.server_url, ca_file=config.ca_file, timeout_s=config.link_timeout_s)
    with StateFolder(config.state_dir) as folder:
        file = IdentityFile(folder.path)
        if not force:
            _refuse_twice(file, folder)
        request = file.begin_enrolment(
            documents.EnrolRequest(
                token=token.strip(),
                target=target,
                idempotency_key=secrets.token_hex(16),
                agent_version=version.VERSION,
                platform=platform.platform()[:256],
                hostname=platform.node()[:256],
            )
        )
        try:
            answer = _ask(DeviceApi(server), request)
        except errors.TransferError as error:
            if error.status == 401 or not error.retry:
                file.abandon_enrolment()
            raise
        identity = _identity(answer, target, parsed, server.url)
        file.finish_enrolment(identity)
    logger.info("enrolled as %s", identity.target)
    return identity


def _refuse_twice(file: IdentityFile, folder: StateFolder) -> None:
    present = file.read()
    if present is not None:
        raise errors.StateError(
            f"the state folder {folder.path} is already enrolled as {present.target!r} at "
            f"{present.server_url}; to enrol it anew use --force with a token from `edgeflow tokens create "
            f"--target {present.target}`, or --state-dir for a second device",
            reason="enrolled",
        )


def _ask(api: DeviceApi, request: documents.EnrolRequest) -> documents.EnrolResponse:
    for attempt in range(1, _TRIES + 1):
        try:
            return api.enrol(request)
        except errors.TransferError as error:
            if error.status == 401:
                raise errors.TransferError(
                    "the server refuses the token: it is unknown, used up or expired; make a new one with "
                    f"`edgeflow tokens create --target {request.target}`",
                    reason="token",
                    status=401,
                ) from error
            if not error.retry or attempt == _TRIES:
                raise
            time.sleep(0.5 * attempt)
    raise AssertionError("unreachable")


def _identity(answer: documents.EnrolResponse, target: str, token: tokens.Token, server_url: str) -> Identity:
    """The identity, after checking that the answer comes from the server that issued the token."""
    root = decode_root_key(answer.root_key)
    if signing.fingerprint(root) != token.fingerprint:
        raise errors.SignatureError(
            "the server's root key is not the one that the token names: this is another server than the one "
            "that issued the token, or somebody is in between; check --server",
            reason="root_key",
        )
    if answer.target != target:
        raise errors.ContractError(f"the server enrolled {answer.target!r} instead of {target!r}")
    if tokens.parse_credential(answer.credential) is None:
        raise errors.ContractError("the server's answer holds no valid credential")
    trust = signing.verify_trust(answer.trust.encode(), root)
    if trust.fleet != answer.fleet:
        raise errors.ContractError("the server's trust document belongs to another server")
    return Identity(
        target=answer.target,
        fleet=answer.fleet,
        server_url=server_url,
        credential=answer.credential,
        root_key=answer.root_key,
        trust=answer.trust,
        trust_version=trust.version,
        mqtt=answer.mqtt,
        credential_at=datetime.now(UTC),
    )
