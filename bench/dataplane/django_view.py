"""The same call as an ordinary Django view: what the data plane would cost if it were one.

It only forwards: no key, no hold, no metering. The upstream's address comes in the environment, for
the bench alone.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import cache

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from pyreqwest.client import Client, ClientBuilder

from bench.dataplane.shapes import PATH
from gateway import env


@cache
def upstream() -> tuple[Client, str]:
    builder = ClientBuilder().follow_redirects(False).no_proxy().http1_only()
    client = builder.connect_timeout(timedelta(seconds=5)).build()
    return client, f"{env.lookup('TOKENHOUSE_BENCH_UPSTREAM')}{PATH}"


@csrf_exempt
async def forward(request: HttpRequest) -> HttpResponseBase:
    client, address = upstream()
    call = client.post(address).body_bytes(request.body)
    if b'"stream":true' not in request.body:
        answer = await call.build().send()
        body = (await answer.bytes()).to_bytes()
        return HttpResponse(body, content_type="application/json")

    async def events() -> AsyncIterator[bytes]:
        async with call.streamed_read_buffer_limit(0).build_streamed() as streamed:
            while (part := await streamed.body_reader.read_chunk()) is not None:
                yield part.to_bytes()

    return StreamingHttpResponse(events(), content_type="text/event-stream")


urlpatterns = [path(PATH.lstrip("/"), forward)]
application = get_asgi_application()
