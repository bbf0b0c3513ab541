"""TLS on our own connection, with the standard library. Decides whom to trust, as the address says; never falls back to plain.

A record is not a reply: the socket may be readable with nothing in it for us (session tickets), so what does not wait asks
without blocking, and what is decrypted already is looked for before the socket is.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from .errors import Unavailable
from .resp import RECEIVE_BYTES, RespConnection
from .uri import ServerAddress

if TYPE_CHECKING:
    import socket


class TlsConnection(RespConnection):
    """A `RespConnection` over TLS. Raises Unavailable(code="tls") when the two do not trust each other."""

    __slots__ = ("_shown",)

    def _connected(self, parsed: ServerAddress, timeout_s: float) -> socket.socket:
        self._shown = bool(parsed.cert)
        made = context(parsed)
        plain = cast("socket.socket", super()._connected(parsed, timeout_s))
        try:
            return made.wrap_socket(plain, server_hostname=parsed.servername or parsed.host)
        except OSError as error:
            plain.close()
            why = getattr(error, "verify_message", "") or error.strerror or str(error)
            hint = "cacert=FILE in the address says whom to trust, servername=NAME the name in the server's certificate"
            raise Unavailable(f"no TLS with {parsed}: {why}", code="tls", hint=hint) from None

    def _receive(self, wait: bool = True) -> None:
        if wait:
            if self.watch is not None:
                self._wait_watching()
            return self._received()
        connection = self._open()
        try:
            connection.settimeout(0.0)
            data = connection.recv(RECEIVE_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            raise self._lost(error) from None
        finally:
            connection.settimeout(self.timeout_s)
        return self._feed(data)

    def certificate_ends(self) -> float:
        """When the server's certificate ends, Unix seconds; 0.0 if it was not looked at (`insecure`)."""
        connection = self._open()
        shown = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        return float(ssl.cert_time_to_seconds(str(shown["notAfter"]))) if shown else 0.0

    def _lost(self, error: Exception) -> Unavailable:
        made = super()._lost(error)
        if not self._shown and made.code == "disconnected":  # TLS 1.3 refuses a client only after it has let it in
            made.hint = "if this server asks for certificates, show it one: cert=FILE&key=FILE in the address"
        return made

    def _readable(self, timeout_s: float) -> bool:
        connection = self._open()
        return bool(isinstance(connection, ssl.SSLSocket) and connection.pending()) or super()._readable(timeout_s)


@lru_cache(maxsize=8)
def context(parsed: ServerAddress) -> ssl.SSLContext:
    """The TLS context an address asks for; files are read once. Raises `Unavailable(code="tls")`."""
    try:
        made = ssl.create_default_context(cafile=parsed.cacert or None)
        if parsed.insecure not in ("", "0"):
            made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        if parsed.cert:
            made.load_cert_chain(parsed.cert, parsed.key or None)
        return made
    except (OSError, ValueError) as error:
        files = ", ".join(name for name in (parsed.cacert, parsed.cert, parsed.key) if name)
        why = getattr(error, "strerror", None) or str(error)
        hint = "cacert, cert and key in the address are PEM files this user can read"
        raise Unavailable(f"the TLS files for {parsed} are no use ({files}): {why}", code="tls", hint=hint) from None


os.register_at_fork(after_in_child=context.cache_clear)  # a fork may come much later, and is to read them anew
