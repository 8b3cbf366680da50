"""A gateway without money or routing, on loopback: surface, wire, reader and writer, no more.

The upstream is a script of bytes, handed to the reader in small pieces, so that SDKs judge
what our dialects look like from outside.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from billing.usage import CanonicalUsage
from gateway.dataplane.surfaces.registry import SURFACES
from gateway.errors import GatewayError
from providers.chat import ChatRequest, Chunk, OfferView, Receipt, UpstreamCall
from providers.wires.registry import wire_for

REQUEST_ID = "0199a0b0-0000-7000-8000-000000000001"
COST_PICO = 153_228_000
PIECE_BYTES = 11


@dataclass
class Script:
    """What the upstream answers, or what the gateway refuses with."""

    offer: OfferView
    answer: bytes = b""
    refusal: GatewayError | None = None
    cut: bool = False  # end with an error event where the answer broke off
    explanation: dict[str, Any] | None = None
    calls: list[UpstreamCall] = field(default_factory=list)
    usage: list[CanonicalUsage | None] = field(default_factory=list)


def receipt(request: ChatRequest, script: Script, reader: Any) -> Receipt:
    return Receipt(
        request_id=REQUEST_ID,
        model=script.offer.model,
        provider=script.offer.provider,
        sku=script.offer.sku,
        usage=reader.usage or CanonicalUsage(input_tokens=0, output_tokens=0),
        usage_source="provider" if reader.usage else "none",
        cost_pico=COST_PICO,
        usage_extra=reader.usage_extra,
        explanation=script.explanation if request.explain else None,
    )


class _Handler(BaseHTTPRequestHandler):
    script: Script

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        surface = SURFACES[self.path]
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            if self.script.refusal is not None:
                raise self.script.refusal
            request = surface.parse(
                body, {k.lower().encode(): v.encode() for k, v in self.headers.items()}
            )
        except GatewayError as error:
            self._send(error.status, b"application/json", surface.render_error(error, REQUEST_ID))
            return
        writer = surface.writer(request, request_id=REQUEST_ID, created_s=1_700_000_001)
        self._send(200, writer.content_type, self._serve(request, writer))

    def _serve(self, request: ChatRequest, writer: Any) -> bytes:
        script = self.script
        wire = wire_for(script.offer.wire)
        script.calls.append(wire.build(request, script.offer, max_output_tokens=64))
        reader = wire.reader(request, script.offer)
        chunks: list[Chunk] = []
        for at in range(0, len(script.answer), PIECE_BYTES):
            chunks += reader.feed(script.answer[at : at + PIECE_BYTES])
        chunks += reader.end()
        script.usage.append(reader.usage)
        told = receipt(request, script, reader)
        if not request.stream:
            return bytes(writer.whole(chunks, told))
        out = b"".join(writer.chunk(chunk) for chunk in chunks)
        if script.cut:
            message = "The upstream broke off."
            return out + bytes(
                writer.error(status=502, code="upstream_cut", message=message, receipt=told)
            )
        return out + bytes(writer.end(told))

    def _send(self, status: int, content_type: bytes, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type.decode())
        self.send_header("content-length", str(len(body)))
        self.send_header("x-request-id", REQUEST_ID)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """The base address of a gateway that follows this script."""
    handler = type("Handler", (_Handler,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
