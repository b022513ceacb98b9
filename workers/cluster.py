"""Starting Ray inside this process, or joining a cluster.

Embedded is the default: `ray.init(address="local")` never joins somebody else's cluster by accident, opens no
dashboard and reports no usage. Does not protect against a cluster whose nodes run another version of dlq or
Python: all nodes must hold the same environment and see the store's path.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

CONNECT_SECONDS = 5.0


class ClusterError(RuntimeError):
    """Ray cannot be had; one line that says why."""


def start(address: str | None, cpus: float) -> Any:
    """The `ray` module, connected. `address` None starts an embedded cluster with at least `cpus` CPUs.

    Raises ClusterError when `address` does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # An embedded cluster leaves a token behind, and clusters started later then ask for it.
    if address and "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"
    if address and address != "auto":
        _probe(address)
    import ray

    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": "dlq"}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            memory = min(2**30, psutil.virtual_memory().total // 10)
            processors = max(int(-(-cpus // 1)), os.cpu_count() or 1)
            ray.init(
                address="local",
                num_cpus=processors,
                include_dashboard=False,
                object_store_memory=max(memory, 100 * 2**20),
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {reason}") from None
    return ray


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()


def _probe(address: str) -> None:
    """Refuse an address nobody listens on at once; Ray itself would try for half a minute or more."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port or (10001 if parts.scheme == "ray" else 6379)
    except ValueError:
        raise ClusterError(f"--address {address!r} is not host:port, ray://host:port or 'auto'") from None
    if not parts.hostname:
        raise ClusterError(f"--address {address!r} is not host:port, ray://host:port or 'auto'")
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"--address {address} does not answer: {error.strerror or error}") from None
