"""What all services that call in share: proofs, bodies, text of strangers; no body raises anything undeclared."""

from __future__ import annotations

import base64
import copy
import json
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Library

from connectors import _hook_json as bodies
from connectors._hook_json import Unreadable, json_body, small, text_of, texts_of, url_of
from connectors._hook_proofs import (
    prove_authorization,
    prove_hex_hmac,
    prove_recent,
    prove_standard_webhook,
    prove_token,
    standard_key,
    standard_signature,
)
from connectors._hook_source import HookSource, delivery_id, required, scope
from connectors._hook_text import is_plain, line, link, passage, shortened
from connectors._slack_write import mrkdwn
from parley.errors import BadSignature, ConfigurationError
from parley.messages import HookRequest, Message, Notice, derived_id
from tests.fakes._caller import NOW, posted

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

# --- proofs ----------------------------------------------------------------------------------------------------------


def test_githubs_published_example_is_proven() -> None:
    """The values of https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries."""
    published = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    prove_hex_hmac(("It's a Secret to Everybody",), b"Hello, World!", published)
    with pytest.raises(BadSignature):
        prove_hex_hmac(("It's a Secret to Everybody",), b"Hello, World?", published)


@given(
    st.binary(max_size=300), st.integers(1, 4_000_000_000), st.text("abcXYZ019_-", min_size=1, max_size=60)
)
def test_our_signatures_are_the_librarys(body: bytes, stamp: int, message_id: str) -> None:
    text = body.decode("latin-1")
    theirs = Library(SECRET).sign(message_id, datetime.fromtimestamp(stamp, UTC), text)
    ours = standard_signature(standard_key(SECRET, "secret"), message_id, stamp, text.encode())
    assert ours == theirs
    headers = {"webhook-id": message_id, "webhook-timestamp": str(stamp), "webhook-signature": theirs}
    proven = prove_standard_webhook((standard_key(SECRET, "secret"),), headers, text.encode(), stamp + 300)
    assert proven == message_id


def test_the_published_example_of_standard_webhooks() -> None:
    """The vector of the reference libraries' own tests."""
    key, body = standard_key(SECRET, "secret"), b'{"test": 2432232314}'
    signature = standard_signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signed(**changes: str) -> dict[str, str]:
    made = Library(SECRET).sign("msg_1", datetime.fromtimestamp(NOW, UTC), "{}")
    return {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": made} | changes


GOOD = signed()["webhook-signature"]


@pytest.mark.parametrize(
    "signature",
    [GOOD, f"v1,{base64.b64encode(b'x' * 32).decode()} {GOOD}", f"v1a,nonsense {GOOD}", f"v2,x {GOOD} v1,"],
)
def test_one_good_signature_of_several_is_enough(signature: str) -> None:
    prove_standard_webhook(
        (standard_key(SECRET, "s"),), signed(**{"webhook-signature": signature}), b"{}", NOW
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-signature": ""},
        {"webhook-signature": GOOD.removeprefix("v1,")},
        {"webhook-signature": GOOD.replace("v1,", "v2,")},
        {"webhook-signature": f"{GOOD}x"},
        {"webhook-signature": " ".join(["v1,x"] * 10_000 + [GOOD])},
        {"webhook-signature": "v1,ü\udcff"},
        {"webhook-id": ""},
        {"webhook-id": "msg_2"},
        {"webhook-id": "msg 1"},
        {"webhook-id": "m" * 300},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": f"{NOW}.0"},
        {"webhook-timestamp": f" {NOW}"},
        {"webhook-timestamp": "٣"},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-timestamp": str(NOW - 301)},
        {"webhook-timestamp": str(NOW + 301)},
    ],
    ids=repr,
)
def test_what_is_not_signed_so_is_refused(changes: dict[str, str]) -> None:
    headers = {name: value[:5000] for name, value in signed(**changes).items()}
    with pytest.raises(BadSignature):
        prove_standard_webhook((standard_key(SECRET, "secret"),), headers, b"{}", NOW)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_*****", "pässword", "whsec_" + "A" * 21]
)
def test_a_secret_that_is_no_key_is_refused_by_its_fields_name(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="signing_token") as refused:
        standard_key(secret, "signing_token")
    assert len(secret) < 8 or secret not in str(refused.value)


def test_a_secret_without_its_padding_or_prefix_is_the_same_key() -> None:
    whole = "whsec_" + base64.b64encode(b"x" * 32).decode()
    assert standard_key(whole.rstrip("="), "s") == standard_key(whole[6:], "s") == b"x" * 32


@pytest.mark.parametrize(
    "header",
    [
        "Bearer token-1",
        "bearer token-2",
        "  Bearer   token-1 ",
        "Basic " + base64.b64encode(b"am:p:w").decode(),
    ],
)
def test_an_authorization_is_proven(header: str) -> None:
    prove_authorization(("token-1", "token-2"), (("am", "p:w"),), header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "token-1",
        "Bearer token-3",
        "Basic YW06",
        "Basic :",
        "Basic \udcff",
        "Bearer ü",
    ],
)
def test_another_authorization_is_refused(header: str) -> None:
    with pytest.raises(BadSignature):
        prove_authorization(("token-1",), (("am", "p:w"),), header)
    with pytest.raises(BadSignature):
        prove_authorization(("",), (("", ""), ("am", "")), header)


def test_an_empty_secret_proves_nothing() -> None:
    with pytest.raises(BadSignature):
        prove_token(("",), "")
    with pytest.raises(BadSignature):
        prove_hex_hmac(("",), b"", "")
    with pytest.raises(BadSignature):
        prove_standard_webhook((), signed(), b"{}", NOW)
    with pytest.raises(ConfigurationError, match="secret is empty"):
        required(secret="", old_secret="x")


@pytest.mark.parametrize(("stamp", "now"), [("100", 400.0), ("100", -200.0), ("0100", 100.9)])
def test_a_time_within_the_window(stamp: str, now: float) -> None:
    prove_recent(stamp, now)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_any_header_is_refused_quietly(one: str, two: str, three: str) -> None:
    headers = {"webhook-id": one, "webhook-timestamp": two, "webhook-signature": three}
    for prove in (
        lambda: prove_standard_webhook((standard_key(SECRET, "s"),), headers, b"{}", NOW),
        lambda: prove_hex_hmac(("secret",), b"{}", one),
        lambda: prove_authorization(("secret",), (("a", "b"),), two),
    ):
        with pytest.raises(BadSignature):
            prove()


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b'{"a": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 100_000, 400),
        (b"1" * 100_000, 400),
        (b"[]", 422),
        (b'"text"', 422),
        (b"null", 422),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_object_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Unreadable) as refused:
        json_body(posted(body, {}))
    assert refused.value.status == status


@pytest.mark.parametrize(
    "body", [b"", b"other=1", b"payload=1&payload=2", b"a=1&" * 100 + b"payload={}", b"payload=%5B%5D"]
)
def test_a_form_without_one_payload_is_refused(body: bytes) -> None:
    form = "application/x-www-form-urlencoded"
    with pytest.raises(Unreadable):
        json_body(posted(body, {}, form), forms=True)
    with pytest.raises(Unreadable) as refused:
        json_body(posted(b"payload={}", {}, form))
    assert refused.value.status == 415
    assert json_body(posted(b"payload=%7B%22a%22%3A1%7D", {}, f"{form}; charset=utf-8"), forms=True) == {
        "a": 1
    }


def test_numbers_that_cannot_be_stored_are_refused() -> None:
    with pytest.raises(Unreadable):
        small(json.loads('{"a": [{"b": 1e999}]}'), 1000)
    with pytest.raises(Unreadable) as refused:
        small({"a": "x" * 1000}, 1000)
    assert refused.value.status == 413
    assert small({"a": [1.5, None, True]}, 1000) == {"a": [1.5, None, True]}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "javascript:alert(1)",
        "https://a b",
        'https://a"b',
        "https://a<b",
        "https://a\nb",
        "http\u017f://a",
        "https://\u0131.example",
        7,
        None,
    ],
)
def test_only_addresses_that_can_be_shown_are_links(url: object) -> None:
    assert url_of(url) == ""


@pytest.mark.parametrize(
    "url", ["https://a.example/b?c=d&e=%20#f", "http://a:1/~b_c(d)", "HTTPS://A/[x]"[:10]]
)
def test_usual_addresses_are_kept(url: str) -> None:
    assert url_of(url) == url


def test_values_of_another_type_are_empty() -> None:
    assert (text_of(7), text_of(None), text_of("a\x00b\ud800c", 4)) == ("", "", "a�b�")
    assert texts_of({"a": "b", "c": 1, "d": None}) == {"a": "b"}
    assert texts_of([("a", "b")]) == {}
    assert texts_of({"a\x00": "b\ud800", "c": "d\n"}) == {"a\ufffd": "b\ufffd", "c": "d\n"}
    assert texts_of({"n" * 300: "t" * 2000}) == {"n" * 200: "t" * 1000}
    assert texts_of({"a": "bcdef"}, limit=3) == {"a": "bcd"}
    assert list(texts_of({str(number): "" for number in range(60)})) == [str(number) for number in range(50)]
    given = {"a": "b"}
    assert texts_of(given) is not given
    assert [bodies.integer_of(value) for value in (3, True, 2**60, 1.0, "3")] == [3, None, None, None, None]
    assert [bodies.id_of(value) for value in (3, "x", True, None)] == ["3", "x", "", ""]
    assert list(bodies.objects_of([1, {"a": 1}, {"b": 1}], 2)) == [{"a": 1}]
    assert list(bodies.objects_of({"a": 1}, 2)) == []


def test_a_delivery_without_a_usable_id_is_known_by_its_body() -> None:
    request = posted(b"{}", {"X-Delivery": "a b"})
    assert delivery_id(request, "x-delivery", "x-other") == derived_id(b"{}")
    assert delivery_id(posted(b"{}", {"X-Other": "1"}), "x-delivery", "x-other") == "1"


def test_a_scope_is_a_conversation_of_bounded_length() -> None:
    assert scope("a", "octo/app").conversation == "octo/app"
    assert scope("a", "").conversation == "all"
    assert scope("a", "x" * 501).conversation == derived_id("x" * 501)


# --- text of strangers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Fix login (at last) [1]", True),
        ("订单 7 已取消", True),
        ("", False),
        (" a", False),
        ("a ", False),
        ("a  b", False),
        ("a\tb", False),
        ("a\nb", False),
        ("a\u202eb", False),
        ("a\x00b", False),
        ("a\ud800b", False),
        ("*a", False),
        ("`a", False),
        ("mail a@example.org", False),
        ("[a](b)", False),
    ],
)
def test_plain_text_is_left_as_it_is(text: str, plain: bool) -> None:
    assert is_plain(text) is plain
    assert is_plain("b", text, "c") is plain
    if plain:
        assert (line(text), passage(text)) == (text, text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Fix login", "Fix login"),
        ("a\n\tb   c", "a b c"),
        ("**bold** `code`", "∗∗bold∗∗ ˋcodeˋ"),
        ("[here](https://evil.example)", "[here] (https://evil.example)"),
        ("@channel hello <@U1>", "@\u2060channel hello <@\u2060U1>"),
        ("mail a@example.org", "mail a@example.org"),
        ("a\u202eb\u200bc\x07d", "abcd"),
        ("👩\u200d🚀 中文", "👩\u200d🚀 中文"),
        ("5 < 6 & 7", "5 < 6 & 7"),
        ("", ""),
    ],
)
def test_a_strangers_line(text: str, shown: str) -> None:
    assert line(text) == shown


@given(st.text(max_size=300))
def test_a_strangers_text_says_nothing_in_slacks_markup(text: str) -> None:
    said = mrkdwn(line(text) + "\n" + passage(text))
    assert "|" not in said or "|" in text
    assert "<http" not in said
    assert "<@" not in said


@given(st.text(max_size=3000), st.integers(1, 100))
def test_text_is_bounded(text: str, limit: int) -> None:
    # Parting a mention or a link adds one character each.
    assert len(line(text, limit)) <= 2 * limit
    assert len(shortened(text, limit)) <= limit
    assert passage(text, 500, 3).count("\n") <= 3


def test_a_link_is_one_whatever_its_address() -> None:
    assert link("#12 [x]", "https://a/b(c)") == "[#12 (x)](https://a/b%28c%29)"
    assert (link("x", ""), link("", "https://a")) == ("x", "")


# --- any body at all -------------------------------------------------------------------------------------------------

NAMES = ("github", "gitea", "gitlab", "alertmanager", "grafana", "sentry")
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def examples() -> list[tuple[HookSource, HookRequest]]:
    found: list[tuple[HookSource, HookRequest]] = []
    for name in NAMES:
        caller = import_module(f"tests.fakes.{name}").DRIVER()
        found += [(caller.connector("a"), request) for request in caller.calls().values()]
    return found


EXAMPLES = examples()


def read(connector: HookSource, request: HookRequest, payload: Any) -> None:
    """Reading this raises nothing but `Unreadable`, and what comes of it can be stored."""
    try:
        body = json.dumps(payload).encode()
    except ValueError:
        return
    try:
        events = connector.events(request.model_copy(update={"body": body}))
    except Unreadable:
        return
    for event in events:
        assert isinstance(event, Notice | Message)
        assert type(event).model_validate_json(event.model_dump_json()) == event


@given(st.sampled_from(EXAMPLES), ANY)
def test_any_json_is_read_or_refused(example: tuple[HookSource, HookRequest], payload: Any) -> None:
    read(*example, payload)


@settings(max_examples=500)
@given(st.data())
def test_a_genuine_call_with_one_part_changed_is_read_or_refused(data: st.DataObject) -> None:
    connector, request = data.draw(st.sampled_from(EXAMPLES))
    payload = copy.deepcopy(json.loads(request.body))
    place = payload
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        if data.draw(st.booleans()) and isinstance(place, dict):
            del place[key]
        else:
            place[key] = data.draw(ANY | st.text(min_size=400, max_size=3000))
        break
    read(connector, request, payload)
