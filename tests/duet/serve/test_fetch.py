"""Addresses: those that are fetched, and all that are refused."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from duet.serve import fetch
from duet.serve.errors import ApiError
from duet.serve.fetch import Fetcher, Target, is_public
from duet.serve.limits import Limits

LIMITS = Limits(medium=10_000, fetch=2.0, redirects=2)
PUBLIC = "93.184.215.14"


class Site(BaseHTTPRequestHandler):
    """Says what its path asks for."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        what, _, rest = self.path[1:].partition("/")
        headers = {"content": b"a picture"}
        if what == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
            return
        if what == "head":
            with suppress(OSError):
                for _ in range(30):
                    self.wfile.write(b"H")
                    time.sleep(0.1)
        self.send_response(int(rest) if what == "status" else 200)
        if what == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if what == "huge":
            self.send_header("Content-Length", "10000000")
        if what == "short":
            self.send_header("Content-Length", "50")
        self.end_headers()
        try:
            if what == "endless":
                while True:
                    self.wfile.write(bytes(4096))
            elif what == "drip":
                for _ in range(30):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            else:
                self.wfile.write(headers["content"])
        except OSError:
            return

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


Make = Callable[..., Fetcher]


@pytest.fixture
def make(site: Any) -> Make:
    """A fetcher whose connections end at the site, whatever their address; they are written down."""
    site.seen.clear()
    site.targets = []

    def connect(target: Target, seconds: float) -> http.client.HTTPConnection:
        site.targets.append(target)
        return http.client.HTTPConnection("127.0.0.1", site.server_port, timeout=seconds)

    def build(resolve: Any = lambda host: [PUBLIC], limits: Limits = LIMITS) -> Fetcher:
        return Fetcher(["good.example", "Other.Example."], limits, resolve, connect)

    return build


def test_a_picture(make: Make, site: Any) -> None:
    assert make().fetch("https://good.example/a.png?size=2#top", "here") == b"a picture"
    assert site.targets == [Target("good.example", PUBLIC, "/a.png?size=2")]
    path, headers = site.seen[0]
    assert path == "/a.png?size=2" and headers["Host"] == "good.example" and headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in headers and "Cookie" not in headers
    for url in ("https://GOOD.example./", "https://other.example:443/", "HTTPS://good.example"):
        assert make().fetch(url, "here") == b"a picture"


@pytest.mark.parametrize(
    "url",
    [
        "http://good.example/a.png",
        "ftp://good.example/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "C:\\secret.png",
        "//good.example/a.png",
        "gopher://good.example",
        "https://good.example:22/",
        "https://good.example:8443/",
        "https://me:secret@good.example/",
        "https://good.example@evil.example/",
        "https://evil.example/?good.example",
        "https://evil.example#good.example",
        "https://sub.good.example/",
        "https://good.example.evil.example/",
        "https://notgood.example/",
        "https://evil.example\\@good.example/",
        "https://good.example\\.evil.example/",
        "https://good.example\r\nHost: evil.example/",
        "https://good.example/\x00",
        "https://good.example/ HTTP/1.1",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://gооd.example/",
        "https://",
        "https:///a.png",
        "https://[good.example/",
        "https://good.example:x/",
        "",
        "a" * 100_000,
    ],
)
def test_addresses_that_are_refused(make: Make, site: Any, url: str) -> None:
    with pytest.raises(ApiError) as error:
        make().fetch(url, "here")
    assert error.value.status == 400 and error.value.param == "here" and not site.targets
    assert error.value.code in ("bad_address", "bad_domain")
    assert "secret" not in error.value.message and "evil" not in error.value.message


PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::", "2002:a9fe:a9fe::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::127.0.0.1", "fec0::1", "x",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_the_inside(make: Make, site: Any, address: str) -> None:
    """Alone and among public ones."""
    assert not is_public(address)
    for found in ([address], [PUBLIC, address], [address, PUBLIC]):
        with pytest.raises(ApiError, match="cannot be fetched"):
            make(lambda host, found=found: found).fetch("https://good.example/", "here")
    assert not site.targets


def test_addresses_of_the_open_internet() -> None:
    assert all(map(is_public, [PUBLIC, "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2001:4860:4860::8888"]))


def test_a_host_that_is_not_there(make: Make) -> None:
    def fail(host: str) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    for resolve in (fail, lambda host: []):
        with pytest.raises(ApiError, match="cannot be fetched"):
            make(resolve).fetch("https://good.example/", "here")


def test_a_name_that_changes_its_address(make: Make, site: Any) -> None:
    """It is asked once, and what it said is connected to (DNS rebinding)."""
    asked: list[str] = []

    def rebind(host: str) -> list[str]:
        asked.append(host)
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    assert make(rebind).fetch("https://good.example/", "here") == b"a picture"
    assert asked == ["good.example"] and [target.address for target in site.targets] == [PUBLIC]


def test_redirects(make: Make, site: Any) -> None:
    assert make().fetch("https://good.example/to/https://other.example/b.png", "here") == b"a picture"
    assert [target.host for target in site.targets] == ["good.example", "other.example"]
    assert make().fetch("https://good.example/to//next.png", "here") == b"a picture"
    assert site.targets[-1] == Target("good.example", PUBLIC, "/next.png")


@pytest.mark.parametrize(
    "to",
    [
        "http://good.example/",
        "https://evil.example/",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "//evil.example/",
        "https://good.example:22/",
        "https://good.example@evil.example/",
        "data:image/png;base64,AAAA",
    ],
)
def test_redirects_are_checked_again(make: Make, site: Any, to: str) -> None:
    with pytest.raises(ApiError):
        make().fetch(f"https://good.example/to/{to}", "here")
    assert len(site.targets) == 1


def test_redirects_resolve_again(make: Make, site: Any) -> None:
    def resolve(host: str) -> list[str]:
        return [PUBLIC] if host == "good.example" else ["10.0.0.1"]

    with pytest.raises(ApiError, match="cannot be fetched"):
        make(resolve).fetch("https://good.example/to/https://other.example/", "here")
    assert len(site.targets) == 1


def test_too_many_redirects(make: Make, site: Any) -> None:
    home = "https://good.example/"
    with pytest.raises(ApiError, match="more than 2 redirects"):
        make().fetch(home + f"to/{home}" * 5, "here")
    assert len(site.targets) == 3


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("endless/", 413, "more than"),
        ("huge/", 413, "more than"),
        ("status/404", 400, "cannot be fetched"),
        ("status/500", 400, "cannot be fetched"),
        ("gzip/", 400, "cannot be fetched"),
        ("short/", 400, "cannot be fetched"),
    ],
)
def test_contents_that_are_refused(make: Make, path: str, status: int, message: str) -> None:
    with pytest.raises(ApiError, match=message) as error:
        make().fetch(f"https://good.example/{path}", "here")
    assert error.value.status == status


@pytest.mark.parametrize("path", ["drip/", "head/", "to//drip/"])
def test_slow_contents(make: Make, path: str) -> None:
    """Every byte comes in time, all of them don't."""
    begin = time.monotonic()
    with pytest.raises(ApiError, match="too long"):
        make(limits=Limits(fetch=0.5)).fetch(f"https://good.example/{path}", "here")
    assert time.monotonic() - begin < 2


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed, which makes the certificate")
def test_the_certificate_is_that_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address, TLS asks for the name."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=good.example",
         "-addext", "subjectAltName=DNS:good.example", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.seen = []  # type: ignore[attr-defined]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connected = []
    create = socket.create_connection

    def here(address: tuple[str, int], *rest: Any) -> socket.socket:
        connected.append(address)
        return create(("127.0.0.1", server.server_port), *rest)

    monkeypatch.setattr(fetch.socket, "create_connection", here)
    fetcher = Fetcher(["good.example", "other.example"], LIMITS, lambda host: [PUBLIC])
    with pytest.raises(ApiError, match="cannot be fetched"):
        fetcher.fetch("https://good.example/", "here")  # nobody has signed it
    fetcher._context.load_verify_locations(certificate)
    assert fetcher.fetch("https://good.example/", "here") == b"a picture"
    with pytest.raises(ApiError, match="cannot be fetched"):
        fetcher.fetch("https://other.example/", "here")
    assert set(connected) == {(PUBLIC, 443)}
    server.shutdown()
    server.server_close()
