"""A payment processor on loopback: localstripe speaks its API, and this adds the payment page.

localstripe knows cards, payments and signed messages, and no hosted pages. Those are opened here,
and paid by calling `pay`, which lets localstripe charge the card and returns the signed message.
Nor does it know idempotency keys: what a key was answered is answered again from here. `faults` are
played one per call that charges a card.
"""

import hashlib
import hmac
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import requests

from tests.patience import PATIENCE_S, eventually
from tests.ports import free_port

API_KEY = "sk_test_12345"
WEBHOOK_SECRET = "whsec_of_a_test"
GOOD_CARD = "4242424242424242"
DECLINED_LATER = "4000000000000341"


@dataclass
class Processor:
    url: str
    behind: str
    pages: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen_keys: list[str] = field(default_factory=list)
    # "500", "500 after", "reset", "reset after", "slow after": before or after the card is charged.
    faults: list[str] = field(default_factory=list)
    is_listing: bool = True
    answered: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    slow_s: float = 0.0

    def charged(self, payer: str) -> int:
        """How often this payer's cards were charged."""
        charges = self.call("/v1/charges?limit=100")["data"]
        return sum(each["customer"] == payer and each["status"] == "succeeded" for each in charges)

    def call(self, path: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = requests.request(
            "POST" if data is not None else "GET",
            f"{self.behind}{path}",
            data=data,
            auth=(API_KEY, ""),
            timeout=PATIENCE_S,
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json() if answer.text.startswith("{") else {}
        return found

    def save_card(self, number: str = GOOD_CARD) -> tuple[str, str]:
        """A payer and its card, as localstripe names them."""
        payer = self.call("/v1/customers", {"description": "payer"})["id"]
        card = self.call(
            "/v1/payment_methods",
            {
                "type": "card",
                "card[number]": number,
                "card[exp_month]": 12,
                "card[exp_year]": 2040,
                "card[cvc]": "123",
            },
        )["id"]
        self.call(f"/v1/payment_methods/{card}/attach", {"customer": payer})
        return payer, card

    def pay(self, page_url: str, **changed: Any) -> tuple[bytes, str]:
        """Pay the page at this address; the message about it, and its signature."""
        page = self.pages[page_url.rpartition("/")[2]]
        payer, card = self.save_card()
        intent = self.call(
            "/v1/payment_intents",
            {
                "amount": page["amount_total"],
                "currency": "usd",
                "customer": payer,
                "payment_method": card,
                "confirm": "true",
            },
        )
        paid = {"payment_status": "paid", "payment_intent": intent["id"], "customer": payer}
        return signed(event("checkout.session.completed", {**page, **paid, **changed}))

    def tell(self, webhook_url: str, *kinds: str) -> None:
        """Let localstripe send its own messages there."""
        data = {"url": webhook_url, "secret": WEBHOOK_SECRET}
        for place, kind in enumerate(kinds):
            data[f"events[{place}]"] = kind
        self.call("/_config/webhooks/console", data)


def event(kind: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "type": kind,
        "created": int(time.time()),
        "data": {"object": subject},
    }


def signed(message: dict[str, Any], *, age_s: int = 0) -> tuple[bytes, str]:
    body = json.dumps(message).encode()
    at = int(time.time()) - age_s
    digest = hmac.new(WEBHOOK_SECRET.encode(), b"%d.%s" % (at, body), hashlib.sha256)
    return body, f"t={at},v1={digest.hexdigest()}"


@contextmanager
def running() -> Iterator[Processor]:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "localstripe", "--from-scratch"]
    process = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    front = ThreadingHTTPServer(("127.0.0.1", 0), _Front)
    processor = Processor(
        url=f"http://127.0.0.1:{front.server_address[1]}", behind=f"http://127.0.0.1:{port}"
    )
    front.processor = processor  # type: ignore[attr-defined]
    thread = threading.Thread(target=front.serve_forever, daemon=True)
    thread.start()
    try:
        eventually(lambda: _answers(processor))
        yield processor
    finally:
        front.shutdown()
        front.server_close()
        thread.join()
        process.terminate()
        process.wait(timeout=PATIENCE_S)


def _answers(processor: Processor) -> bool:
    try:
        processor.call("/v1/balance")
    except requests.RequestException:
        return False
    return True


class _Front(BaseHTTPRequestHandler):
    """Opens payment pages itself; hands everything else to localstripe."""

    @property
    def _processor(self) -> Processor:
        found: Processor = self.server.processor  # type: ignore[attr-defined]
        return found

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/v1/payment_intents":
            self._list(path, parse_qs(query)["customer"][0])
        else:
            self._answer(*self._asked(None))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key", "")
        self._processor.seen_keys.append(key)
        if self.path == "/v1/checkout/sessions":
            self._answer(200, json.dumps(_page(self._processor, body)).encode())
        elif self.path == "/v1/payment_intents":
            self._charge(key, body)
        else:
            self._answer(*self._asked(body))

    def _charge(self, key: str, body: bytes) -> None:
        processor = self._processor
        fault, _, moment = (processor.faults.pop(0) if processor.faults else "").partition(" ")
        if moment == "after" or not fault:
            if key not in processor.answered:
                processor.answered[key] = self._asked(body)
        if fault == "500":
            self._answer(500, b'{"error": {"type": "api_error", "message": "out of order"}}')
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault == "slow":
            threading.Event().wait(processor.slow_s)
        if not fault:
            self._answer(*processor.answered[key])

    def _list(self, path: str, payer: str) -> None:
        if not self._processor.is_listing:
            self._answer(500, b'{"error": {"type": "api_error", "message": "out of order"}}')
            return
        self.path = f"{path}?limit=100"
        status, body = self._asked(None)
        found = json.loads(body)
        found["data"] = [each for each in found["data"] if each["customer"] == payer]
        self._answer(status, json.dumps(found).encode())

    def _asked(self, body: bytes | None) -> tuple[int, bytes]:
        kept = ("authorization", "content-type", "idempotency-key")
        headers = {name: value for name, value in self.headers.items() if name.lower() in kept}
        answer = requests.request(
            self.command,
            self._processor.behind + self.path,
            data=body,
            headers=headers,
            timeout=PATIENCE_S,
        )
        return answer.status_code, answer.content

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _page(processor: Processor, body: bytes) -> dict[str, Any]:
    asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    page_id = f"cs_test_{uuid.uuid4().hex}"
    amounts = [int(v) for name, v in asked.items() if name.endswith("[price_data][unit_amount]")]
    page = {
        "id": page_id,
        "object": "checkout.session",
        "url": f"https://pay.example/{page_id}",
        "amount_total": sum(amounts),
        "currency": "usd",
        "payment_status": "unpaid",
        "metadata": {"topup": asked["metadata[topup]"]},
        "customer": None,
        "payment_intent": None,
    }
    processor.pages[page_id] = page
    return page
