"""Connections to PostgreSQL: what is asked of the system for them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from threading import Thread

import pytest
from sqlalchemy.exc import OperationalError

from gateway.money.databases import postgres_engine


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _socket_to(port):
    """Return a copy of this process' socket that is connected to a port."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as found:
                    if found.family == socket.AF_INET and found.getpeername()[1] == port:
                        return found.dup()
    raise AssertionError("nobody is connected there")


def test_a_server_that_is_cut_off_is_given_up_in_seconds_not_hours(listener):
    port = listener.getsockname()[1]
    engine = postgres_engine(f"postgresql://me@127.0.0.1:{port}/db?sslmode=disable")

    def connect():
        with suppress(OperationalError):
            engine.connect().close()

    asking = Thread(target=connect)
    asking.start()
    accepted, _ = listener.accept()
    accepted.recv(1)  # it has said its first word, so its options are set
    try:
        with _socket_to(port) as mine:
            unanswered_ms = mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            is_asked_now_and_then = mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            after_s = mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    finally:
        accepted.close()
        asking.join()
        engine.dispose()

    assert is_asked_now_and_then == 1
    assert 0 < unanswered_ms <= 15_000
    assert after_s <= 10
