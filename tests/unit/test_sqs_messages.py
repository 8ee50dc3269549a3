"""Events as SQS messages: what Amazon takes, and how many fit into a request."""

from __future__ import annotations

import base64
import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.outcome import Piece
from aftersend.transports.sqs.messages import BATCH_BYTES, BATCH_COUNT, Message, message_of, requests_of

TAKEN = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=50) | st.text("\x00\x08\x1f\ufffe\uffff aé😀", max_size=20)


def made(body: bytes, content_type: str = "application/json", *, is_fifo: bool = False, key: str = "k") -> Message:
    return message_of(Piece("id", key, "email.clicked", body, content_type), is_fifo=is_fifo)


def encoding(message: Message) -> str:
    found = message.entry["MessageAttributes"].get("aftersend-encoding", {})
    return str(found.get("StringValue", ""))


@given(TEXTS)
def test_json_is_told_as_json_with_the_same_meaning(text: str) -> None:
    body = msgspec.json.encode({"user_agent": text})
    message = made(body)
    assert TAKEN.fullmatch(message.entry["MessageBody"])
    assert msgspec.json.decode(message.entry["MessageBody"]) == msgspec.json.decode(body)
    assert not encoding(message)


@given(TEXTS.map(str.encode) | st.binary(max_size=50))
def test_any_other_body_comes_back_byte_for_byte(body: bytes) -> None:
    message = made(body, "text/csv")
    told = message.entry["MessageBody"]
    assert TAKEN.fullmatch(told)
    assert (base64.b64decode(told) if encoding(message) else told.encode()) == body


@given(st.lists(st.integers(1, 120_000), max_size=40))
def test_requests_hold_all_messages_in_order_and_none_too_many(sizes: list[int]) -> None:
    messages = [made(b"x" * size, "text/plain") for size in sizes]
    requests = list(requests_of(messages))
    assert [one for request in requests for one in request] == messages
    for request in requests:
        assert 1 <= len(request) <= BATCH_COUNT
        assert sum(one.size for one in request) <= BATCH_BYTES


def test_attributes_count_as_bytes() -> None:
    assert made(b"x").size > len("x" + "id" + "email.clicked" + "application/json")


def test_only_fifo_queues_are_told_of_groups() -> None:
    assert "MessageGroupId" not in made(b"x").entry
    entry = made(b"x", is_fifo=True, key="zoë 😀 " + "z" * 500).entry
    assert entry["MessageDeduplicationId"] == "id"
    assert re.fullmatch("[0-9a-f]{32}", entry["MessageGroupId"])
