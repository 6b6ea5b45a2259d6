"""Fetches pictures and videos: only https, allowed domains and public hosts.

Each host name is resolved here, once per URL. All its addresses have to be public, and the
connection goes to one of them, so a second DNS answer cannot redirect it.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from duet.serve.errors import ApiError, refuse
from duet.serve.limits import Limits
from duet.serve.media import too_large

HTTPS = 443
REDIRECTS = (301, 302, 303, 307, 308)
#: Bytes read at a time.
CHUNK = 1 << 16
#: Translated networks: their addresses may lead to private ones.
_TRANSLATED = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("2002::/16"),
    ipaddress.ip_network("2001::/32"),
)


class Target(NamedTuple):
    """Where a request goes.

    Attributes:
        host: name, for TLS and the Host header.
        address: the host's address to connect to.
        path: with the query.
    """

    host: str
    address: str
    path: str


class PinnedConnection(http.client.HTTPSConnection):
    """TLS to a given address, with the certificate checked for the name."""

    def __init__(self, host: str, address: str, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, HTTPS, timeout=timeout, context=context)
        self._address, self._tls = address, context

    def connect(self) -> None:
        """Connect to the address, without resolving the name again."""
        plain = socket.create_connection((self._address, self.port), self.timeout)
        # the time limit of `Fetcher.fetch` has to cover the TLS handshake too
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock.do_handshake()


class Fetcher:
    """Fetches from some domains.

    Args:
        domains: exact names of hosts, without port.
        limits: of the server.
        resolve: `host -> addresses`.
        connect: `target, seconds -> connection`.
    """

    def __init__(
        self,
        domains: Sequence[str],
        limits: Limits,
        resolve: Callable[[str], list[str]] | None = None,
        connect: Callable[[Target, float], http.client.HTTPConnection] | None = None,
    ) -> None:
        self.domains = frozenset(domain.lower().rstrip(".") for domain in domains)
        self.limits = limits
        self._resolve = resolve or addresses_of
        self._context = ssl.create_default_context()
        self._connect = connect or self._by_tls

    def fetch(self, url: str, where: str) -> bytes:
        """The content of an address.

        Args:
            url: https.
            where: the parameter, for messages.

        Raises:
            ApiError: a URL or redirect that is not allowed; too large, too slow, or not found.
        """
        end = time.monotonic() + self.limits.fetch
        for _ in range(self.limits.redirects + 1):
            target = self._check(url, where)
            left = end - time.monotonic()
            if left <= 0:
                raise _slow(where)
            try:
                with closing(self._connect(target, left)) as connection, _clock(connection, left):
                    answer = self._ask(connection, target)
                    if answer.status not in REDIRECTS:
                        return self._read(answer, where)
                    url = urljoin(url, answer.headers.get("Location", ""))
            except (OSError, http.client.HTTPException, ValueError):
                if time.monotonic() >= end:
                    raise _slow(where) from None
                raise refuse(f"{where}: cannot be fetched", where, "fetch_failed") from None
        raise refuse(f"{where}: more than {self.limits.redirects} redirects", where, "fetch_failed")

    def _check(self, url: str, where: str) -> Target:
        """Scheme, host and addresses; the same for the first URL and for every redirect."""
        parts, port = _split(url)
        if parts is None or parts.scheme != "https" or port != HTTPS or parts.username is not None:
            raise refuse(f"{where}: give an https address, or a data URL", where, "bad_address")
        host = (parts.hostname or "").rstrip(".")
        if host not in self.domains:
            raise refuse(f"{where}: this server does not fetch from this domain", where, "bad_domain")
        try:
            found = self._resolve(host)
        except OSError:
            found = []
        if not found or not all(is_public(address) for address in found):
            raise refuse(f"{where}: cannot be fetched", where, "fetch_failed")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(host, found[0], path)

    def _by_tls(self, target: Target, seconds: float) -> http.client.HTTPConnection:
        return PinnedConnection(target.host, target.address, seconds, self._context)

    @staticmethod
    def _ask(connection: http.client.HTTPConnection, target: Target) -> http.client.HTTPResponse:
        # a compressed body could be far larger than what was read
        headers = {"Host": target.host, "User-Agent": "duet", "Accept-Encoding": "identity"}
        connection.request("GET", target.path, headers=headers)
        return connection.getresponse()

    def _read(self, answer: http.client.HTTPResponse, where: str) -> bytes:
        if answer.status != 200 or answer.headers.get("Content-Encoding", "identity") != "identity":
            raise http.client.HTTPException("no plain content")
        if (answer.length or 0) > self.limits.medium:
            raise too_large(self.limits, where)
        content = bytearray()
        while chunk := answer.read1(CHUNK):
            content += chunk
            if len(content) > self.limits.medium:
                raise too_large(self.limits, where)
        if answer.length:
            raise http.client.IncompleteRead(bytes(content), answer.length)
        return bytes(content)


def addresses_of(host: str) -> list[str]:
    """All addresses of a host, as the system resolves it.

    Raises:
        OSError: no address found.
    """
    found = socket.getaddrinfo(host, HTTPS, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an address is public: not private, local, link-local, shared, reserved or translated."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # with a zone, as fe80::1%eth0
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        parsed = mapped
    if any(parsed.version == network.version and parsed in network for network in _TRANSLATED):
        return False
    local = getattr(parsed, "is_site_local", False)
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or local)


@contextmanager
def _clock(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """Connect, and cut the connection after a time even if it is busy: a socket's own limit is per read.

    Raises:
        OSError: the time was over before the end of the block.
    """

    def stop() -> None:
        late.set()
        # a connection that closes after its answer hands its socket on
        for sock in (*sockets, connection.sock):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    late, sockets = threading.Event(), []
    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        connection.connect()
        sockets.append(connection.sock)
        yield
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError


def _split(url: str) -> tuple[SplitResult | None, int | None]:
    # http.client refuses such characters as well, but urljoin and urlsplit silently drop some
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return None, None
    try:
        parts = urlsplit(url)
        return parts, parts.port or HTTPS
    except ValueError:
        return None, None


def _slow(where: str) -> ApiError:
    return refuse(f"{where}: fetching took too long", where, "fetch_timeout")
