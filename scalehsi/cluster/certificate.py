"""The certificate of one run, with which the scheduler, its workers and its clients know each other.

A connection without it is refused, so that no other user of the machine or of the network can run code as the owner of
the cluster. It is in files because each process that joins needs it: restarted workers, jobs of a queue, and a second
program of the same user. distributed itself writes a certificate in memory to temporary files whenever it loads it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

from scalehsi.cluster.private_folder import own_folders

CERTIFICATE: Final = "cert.pem"
KEY: Final = "key.pem"
ADDRESS: Final = "address"


def make(folder: Path) -> Any:
    """Write a new self-signed certificate (RSA 2048, one year) to a private folder; returns `distributed.Security`."""
    from distributed import Security

    made = Security.temporary()
    _write(folder / CERTIFICATE, made.tls_worker_cert)
    _write(folder / KEY, made.tls_worker_key)
    return in_folder(folder)


def in_folder(folder: Path) -> Any:
    """The `distributed.Security` with one certificate for all roles, from the files in a folder."""
    from distributed import Security

    cert, key = str(folder / CERTIFICATE), str(folder / KEY)
    roles = {
        f"tls_{role}_{what}": path
        for role in ("client", "scheduler", "worker")
        for what, path in (("cert", cert), ("key", key))
    }
    return Security(require_encryption=True, tls_ca_file=cert, **roles)


def note_address(folder: Path, address: str) -> None:
    """Write down which scheduler uses the certificate, for `find`."""
    _write(folder / ADDRESS, address)


def find(address: str) -> Any:
    """The certificate of this user's local cluster at an address, which another process started; None without one."""
    for folder in own_folders(tempfile.gettempdir()):
        try:
            if (folder / ADDRESS).read_text(encoding="ascii") == address.rstrip("/"):
                return in_folder(folder)
        except (OSError, UnicodeDecodeError):
            continue
    return None


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
