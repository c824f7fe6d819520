"""Which way to an origin: directly, or through the proxy that the environment names."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from gateway.upstream.pool import Pool
from gateway.upstream.types import Origin, Transport


def open_transport(origin: Origin, env: Mapping[str, str]) -> Transport:
    """Return the way to an origin; nothing is connected yet."""
    proxy = proxy_for(origin, env)
    if proxy is None:
        return Pool(origin)
    from gateway.upstream.proxied import Proxied  # httpx stays unloaded without a proxy

    return Proxied(origin, proxy)


def proxy_for(origin: Origin, env: Mapping[str, str]) -> str | None:
    """Return the proxy's URL by the usual variables, lower case first; loopback has none.

    NO_PROXY holds host names (with their subdomains), addresses, networks and
    host:port, split by commas, or `*`. As elsewhere, HTTP_PROXY in capitals is
    not trusted inside a CGI script.
    """
    if origin.socket is not None or _is_loopback(origin.host):
        return None
    if _is_exempt(origin, _read(env, "no_proxy") or ""):
        return None
    kind = "https_proxy" if origin.is_tls else "http_proxy"
    if kind == "http_proxy" and "REQUEST_METHOD" in env:
        return env.get(kind) or None
    proxy = _read(env, kind) or _read(env, "all_proxy")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _read(env: Mapping[str, str], name: str) -> str | None:
    return env.get(name) or env.get(name.upper()) or None


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_exempt(origin: Origin, no_proxy: str) -> bool:
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return any(_matches(entry, origin) for entry in entries if entry)


def _matches(entry: str, origin: Origin) -> bool:
    host = origin.host.lower()
    if entry == "*" or entry == host:
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        pass
    name, _, port = entry.partition(":")
    if port and port != str(origin.port):
        return False
    name = name.lstrip("*").lstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
