from __future__ import annotations

import asyncio

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from hub.provider import Unavailable, ask


def answered(sent: bytes) -> object:
    """What a provider said that sends these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        writer.close()

    async def talk() -> object:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = AsyncHTTPClient(force_instance=True)
        try:
            return await ask(client, HTTPRequest(f"http://127.0.0.1:{port}/", request_timeout=5))
        finally:
            client.close()
            server.close()

    return asyncio.run(talk())


def test_an_answer_is_json() -> None:
    assert answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") == {}


@pytest.mark.parametrize(
    "sent",
    [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"],
)  # fmt: skip
def test_an_answer_that_nobody_can_read_is_none(sent: bytes) -> None:
    with pytest.raises(Unavailable) as caught:
        answered(sent)
    assert str(caught.value).isprintable()
