"""Join a running scheduler, and make a client the one that computes; for `scalehsi.cluster.connect` alone."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from scalehsi import forks as forks  # a fork computes by its own threads
from scalehsi.cluster import certificate
from scalehsi.schema import InputError

CONNECT_SECONDS: Final = 10
ADDRESS: Final = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})/?")
CERTIFICATE_FILES: Final = ("tls_ca_file", "tls_client_cert", "tls_client_key")


def join_scheduler(address: str, options: Mapping[str, Any]) -> Any:
    """A `distributed.Client` of the scheduler at an address, with the certificate of the user or of its own cluster.

    Parameters
    ----------
    address : str
        Matches `ADDRESS`.
    options : mapping
        ``security``, or `CERTIFICATE_FILES`.

    Raises
    ------
    InputError
        When nothing listens there, another program does, or the certificate is missing or not that of the scheduler.
    """
    from distributed import Client, Security

    given = {name: os.fspath(value) for name, value in options.items() if name in CERTIFICATE_FILES}
    for name, path in given.items():
        if not Path(path).is_file():
            raise InputError(f"{name}: there is no file {path!r}")
    security: Any = options.get("security") or (None if given else certificate.find(address))
    security = security or Security(require_encryption=address.startswith("tls"), **given)
    _check_scheduler_answers(address, security)
    try:
        return Client(address, security=security, timeout=CONNECT_SECONDS)
    except (OSError, TypeError, ValueError) as problem:
        raise _no_scheduler_error(address, str(problem)) from problem


def _check_scheduler_answers(address: str, security: Any) -> None:
    """Refuse an address at which nothing listens, or at which no Dask scheduler answers in time.

    Dask itself would retry in the first case until its timeout, and wait without limit in the second.
    """
    protocol, host, port = ADDRESS.fullmatch(address).groups()  # type: ignore[union-attr] # the caller matched it
    try:
        line = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS)
    except OSError as problem:
        raise InputError(
            f"no scheduler answers at {address!r} ({problem.strerror or problem}); start one with "
            f"'dask scheduler --host {host} --port {port}', or look its address up in its log"
        ) from None
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(line)
            if protocol == "tls":
                if not (security.tls_ca_file and security.tls_client_cert):
                    raise InputError(
                        f"{address!r} needs certificates; type tls_ca_file=..., tls_client_cert=..., "
                        "tls_client_key=..., or security=distributed.Security(...), or set distributed.comm.tls in "
                        "Dask's configuration"
                    )
                context = security.get_connection_args("client")["ssl_context"]
                line = stack.enter_context(context.wrap_socket(line))
            reason = "" if line.recv(1) else "it hangs up"  # a scheduler sends first
    except TimeoutError:
        reason = f"silent for {CONNECT_SECONDS:g} s"
    except OSError as problem:  # those of TLS too
        reason = (getattr(problem, "reason", None) or str(problem)).replace("_", " ").lower()
    if reason:
        raise _no_scheduler_error(address, reason)


def _no_scheduler_error(address: str, reason: str) -> InputError:
    other = "tcp" if address.startswith("tls") else "tls"
    return InputError(
        f"a program listens at {address!r} but does not answer as a Dask scheduler ({reason}); is the protocol "
        f"'{other}://', are the certificates those of the cluster, is the port the scheduler's?"
    )


@contextlib.contextmanager
def current(client: Any) -> Iterator[Any]:
    """Make a client the current one, also within the ``with distributed.Client(...)`` of another; then close it."""
    from distributed.client import _current_client

    before = _current_client.get()
    _current_client.set(client)
    try:
        yield client
    finally:
        # Elsewhere, as in another thread or beside a cluster that was connected later, another one is current.
        if _current_client.get() is client:
            _current_client.set(None if before is None or before.status == "closed" else before)
        client.close()
