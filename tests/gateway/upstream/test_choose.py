from __future__ import annotations

from pathlib import Path

import pytest

from gateway.upstream.choose import open_transport, proxy_for
from gateway.upstream.pool import Pool
from gateway.upstream.proxied import Proxied
from gateway.upstream.types import Origin

HTTP = Origin.of_url("http://api.example.com/v1")
HTTPS = Origin.of_url("https://api.example.com/v1")
BOTH = {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://s:2"}


@pytest.mark.parametrize(
    ("origin", "env", "proxy"),
    [
        (HTTPS, {}, None),
        (HTTPS, {"HTTPS_PROXY": ""}, None),
        (HTTP, BOTH, "http://p:1"),
        (HTTPS, BOTH, "http://s:2"),
        (HTTPS, {"https_proxy": "http://low:3", **BOTH}, "http://low:3"),
        (HTTPS, {"ALL_PROXY": "http://all:4"}, "http://all:4"),
        (HTTPS, {"HTTPS_PROXY": "bare:5"}, "http://bare:5"),
        (HTTP, {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        (HTTPS, {**BOTH, "NO_PROXY": "*"}, None),
        (HTTPS, {**BOTH, "NO_PROXY": "other.com, example.com"}, None),
        (HTTPS, {**BOTH, "no_proxy": ".example.com"}, None),
        (HTTPS, {**BOTH, "no_proxy": "*.Example.com"}, None),
        (HTTPS, {**BOTH, "no_proxy": "ample.com"}, "http://s:2"),
        (HTTPS, {**BOTH, "no_proxy": "example.com:443"}, None),
        (HTTPS, {**BOTH, "no_proxy": "example.com:8443"}, "http://s:2"),
        (HTTPS, {**BOTH, "no_proxy": " , "}, "http://s:2"),
        (Origin("10.1.2.3"), {**BOTH, "no_proxy": "10.0.0.0/8"}, None),
        (Origin("11.1.2.3"), {**BOTH, "no_proxy": "10.0.0.0/8"}, "http://p:1"),
        (Origin("fd00::1"), {**BOTH, "no_proxy": "fd00::/8"}, None),
        (Origin("127.0.0.1"), BOTH, None),
        (Origin("127.9.9.9"), BOTH, None),
        (Origin("::1"), BOTH, None),
        (Origin("localhost"), BOTH, None),
        (Origin("a.localhost"), BOTH, None),
        (Origin.of_socket(Path("s")), BOTH, None),
    ],
)
def test_environment_says_which_proxy(origin, env, proxy):
    assert proxy_for(origin, env) == proxy


async def test_way_is_direct_without_a_proxy_and_through_it_with_one():
    direct, proxied = open_transport(HTTPS, {}), open_transport(HTTPS, BOTH)
    await direct.aclose()
    await proxied.aclose()

    assert isinstance(direct, Pool)
    assert isinstance(proxied, Proxied)


def test_proxy_of_another_kind_is_refused_without_its_password():
    with pytest.raises(ValueError, match="socks5") as caught:
        open_transport(HTTPS, {"ALL_PROXY": "socks5://user:planted@p:1"})

    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://h/v1", "h"),
        ("https://h", "h"),
        ("http://h:80", "h"),
        ("https://h:80", "h:80"),
        ("http://[::1]:9/v1", "[::1]:9"),
        ("http://H.Example:8000", "h.example:8000"),
        ("http://b\u00fccher.example", "xn--bcher-kva.example"),
    ],
)
def test_origin_of_a_url_is_named_as_in_the_host_header(url, authority):
    assert Origin.of_url(url).authority == authority


@pytest.mark.parametrize("url", ["ftp://h", "h:80", "http://", "http://u:p@h", "unix:/x", ""])
def test_other_urls_are_no_origin(url):
    with pytest.raises(ValueError, match="expected http"):
        Origin.of_url(url)


def test_file_without_authorities_is_refused(tmp_path):
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing here")
    for path in (empty, tmp_path / "absent.pem"):
        with pytest.raises(ValueError, match=r"tls\.ca_file"):
            Pool(Origin("h", 443, True, path))
