"""The pure-Python proxy, with answers passed on as they come.

configurable-http-proxy 0.4.0 for Python reads a whole answer before it sends the first byte: the spawn page's event
stream would arrive when the spawn is over, and a download would have to fit in 100 MB of memory. Everything else of it
(routes, REST interface, websockets, error pages) is used as it is.
"""

from __future__ import annotations

from typing import Any

from configurable_http_proxy import cli
from configurable_http_proxy.configproxy import PythonProxy
from configurable_http_proxy.handlers import ProxyHandler
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httputil import parse_response_start_line
from tornado.iostream import StreamClosedError
from tornado.web import Application

# Of one connection only (RFC 9110 section 7.6.1); Tornado writes its own.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)

_LARGEST_ANSWER_BYTES = 1 << 40
"""Tornado refuses more than 100 MB by default; answers are not kept here, so their size is nobody's problem."""

_CONNECTIONS = 1000
"""Tornado's default is 10, which the event streams of ten open pages would use up."""


class StreamingHandler(ProxyHandler):  # type: ignore[misc]  # published without types
    """Passes an answer on chunk by chunk, as fast as the browser takes it."""

    async def call_proxy(self, path: str | None = None) -> None:
        """The browser has the target's answer, or an error page where the target does not answer."""
        url = await self.get_target_url(path)
        if url is None:
            return
        try:
            response = await AsyncHTTPClient().fetch(self._streaming_request(url), raise_error=False)
        except StreamClosedError:
            return  # the browser went away in the middle
        except Exception as error:  # noqa: BLE001  the outermost place: every failure of a target is an answer
            if not self._headers_written:
                await self.handle_proxy_error(503, error)
            return
        if response.code == 599 and not self._headers_written:
            await self.handle_proxy_error(503, response.error)
        elif not self._finished:
            await self.finish()

    def _streaming_request(self, url: str) -> HTTPRequest:
        request: HTTPRequest = self._get_proxy_request(url)
        request.decompress_response = False  # the bytes of the target, as the browser asked for them
        request.request_timeout = 0  # an event stream has no end; the browser decides
        request.header_callback = self._on_header
        request.streaming_callback = self._on_chunk
        return request

    def _on_header(self, line: str) -> None:
        if line.startswith("HTTP/"):
            start = parse_response_start_line(line.strip())
            self.clear()
            for name in list(self._headers):
                self.clear_header(name)
            self.set_status(start.code, start.reason)
        elif ":" in line:
            name, _, value = line.partition(":")
            if name.strip().lower() not in _HOP_BY_HOP:
                self.add_header(name.strip(), value.strip())

    async def _on_chunk(self, chunk: bytes) -> None:
        self.write(chunk)
        await self.flush()


class StreamingProxy(PythonProxy):  # type: ignore[misc]  # published without types
    """The proxy, with the handler above for what users ask."""

    def __init__(self, options: Any = ()) -> None:
        super().__init__(options)
        self.proxy_app = Application([(r"/(.*)", StreamingHandler, {"proxy": self})])


def main() -> None:
    """Run the proxy with the command line of ``configurable-http-proxy``."""
    AsyncHTTPClient.configure(None, max_clients=_CONNECTIONS, max_body_size=_LARGEST_ANSWER_BYTES)
    cli.PythonProxy = StreamingProxy
    cli.main()


if __name__ == "__main__":
    main()
