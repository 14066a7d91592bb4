"""Try to get into a cluster as a stranger. Run as a program: uid, ports of the cluster, files that are private.

It prints a JSON object: for each port and way whether the other side said anything that a stranger can use.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any, Final

import pytest

STRANGER: Final = 65534
"""A user id that owns nothing: nobody."""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")

WAIT: Final = 1.0
TLS_ALERT: Final = 0x15


def plain(port: int) -> str:
    """What a port says to somebody who writes plain text; a TLS alert counts as nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as line:
        try:
            line.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            said = line.recv(4096)
        except OSError as problem:
            return f"refused: {type(problem).__name__}"
    return "refused" if not said or said[0] == TLS_ALERT else f"says {said[:40]!r}"


def encrypted(port: int, context: ssl.SSLContext) -> str:
    """What a port says under TLS, with the certificate of the context or none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as bare, context.wrap_socket(bare) as line:
            said = line.recv(4096)
    except OSError as problem:
        return f"refused: {type(problem).__name__}"
    return "refused" if not said else f"says {said[:40]!r}"


def client(address: str, security: Any) -> str:
    from distributed import Client

    try:
        with Client(address, security=security, timeout=WAIT) as inside:
            return f"ran code as {inside.run_on_scheduler(os.getuid)}"
    except Exception as problem:
        return f"refused: {type(problem).__name__}"


def worker(address: str, security: Any) -> str:
    from distributed import Worker

    async def join() -> str:
        one = Worker(address, security=security, host="127.0.0.1", dashboard_address="127.0.0.1:0")
        try:
            await asyncio.wait_for(one, WAIT)
        finally:
            await one.close(timeout=1)
        return "joined"

    try:
        return asyncio.run(join())
    except Exception as problem:
        return f"refused: {type(problem).__name__}"


def read(path: str) -> str:
    try:
        return f"read {len(Path(path).read_bytes())} bytes"
    except OSError as problem:
        return f"refused: {type(problem).__name__}"


def main(uid: str, ports: str, files: str) -> None:
    from distributed import Security, Worker  # noqa: F401 - loaded before the change of user, who may not read them

    own = Security.temporary()
    os.chdir("/")
    if int(uid) != os.getuid():
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    nobody = ssl.create_default_context()
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    found: dict[str, Any] = {"uid": os.getuid(), "files": {path: read(path) for path in json.loads(files)}}
    for port in json.loads(ports):
        mine = own.get_connection_args("client")["ssl_context"]
        mine.verify_mode = ssl.CERT_NONE
        found[str(port)] = {
            "plain text": plain(port),
            "TLS without a certificate": encrypted(port, nobody),
            "TLS with another certificate": encrypted(port, mine),
            "client": client(f"tcp://127.0.0.1:{port}", None),
            "client with another certificate": client(f"tls://127.0.0.1:{port}", own),
            "worker": worker(f"tcp://127.0.0.1:{port}", None),
            "worker with another certificate": worker(f"tls://127.0.0.1:{port}", own),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
