"""Rewriting a message: what is tracked, what is left alone, and what is said about it."""

import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from aftersend.capture.links import Level, Link, Links
from aftersend.capture.message import read_message
from aftersend.capture.plan import NOTICES, UNSUBSCRIBE_LIMIT, Plan, Rewritten
from aftersend.capture.rewrite import rewrite
from aftersend.capture.tokens import LinkError, Purpose, address, split_path
from aftersend.capture.transfer import LINE_LIMIT
from aftersend.core.errors import StoreError

BASE = "https://t.example.net"
UNSUBSCRIBE = Path(__file__).parents[1] / "fixtures" / "foreign" / "unsubscribe"
LINKS = Links(lambda purpose, key_id: sha256(f"{purpose} {key_id}".encode()).digest())


def sign(link: Link) -> str:
    return address(BASE, link.purpose, LINKS.seal(link, "0badf00d"))


def plan(**options: Any) -> Plan:
    return Plan(tenant=3, domain=5, own_hosts=frozenset({"t.example.net"}), **options)


def html(body: str, *fields: str, type_: str = "text/html; charset=utf-8") -> bytes:
    """A mail of one part."""
    head = ["From: n@example.com", "To: Alice <alice@example.org>", "Message-ID: <m1@example.com>", *fields]
    return "\r\n".join([*head, "MIME-Version: 1.0", f"Content-Type: {type_}", "", body]).encode()


def signed(message: bytes) -> Iterator[Link]:
    """The links in a message, opened."""
    for path in re.findall(rb"https://t\.example\.net(/[a-z]/[\w-]+)", message):
        purpose, token = split_path(path.decode())
        yield LINKS.open(token, purpose)


def done(body: str, *fields: str, type_: str = "text/html; charset=utf-8", **options: Any) -> Rewritten:
    return rewrite(html(body, *fields, type_=type_), plan(**options), sign)


def targets(result: Rewritten) -> list[str]:
    return [link.target for link in signed(result.message) if link.purpose is Purpose.CLICK]


def codes(result: Rewritten) -> set[str]:
    return {notice.code for notice in result.warnings}


def body_of(message: bytes) -> bytes:
    return message.split(b"\r\n\r\n", 1)[1]


# links


def test_a_link_says_whom_and_what_it_is_about() -> None:
    result = done('<a href="https://example.com/?a=1&amp;b=2">x</a>', bottom=False, unsubscribe=False, campaign_id="c1")
    assert list(signed(result.message)) == [
        Link(
            Purpose.CLICK,
            Level.FULL,
            3,
            5,
            "alice@example.org",
            "<m1@example.com>",
            "c1",
            place=1,
            target="https://example.com/?a=1&b=2",
        )
    ]


def test_links_are_numbered_as_they_stand() -> None:
    page = '<a href="https://one.example">1</a><a href="#">-</a><area href="https://two.example">'
    assert [link.place for link in signed(done(page, bottom=False, unsubscribe=False).message)] == [1, 2]


@pytest.mark.parametrize(
    ("href", "reason"),
    [
        ("mailto:a@example.com", "scheme"),
        ("tel:+1", "scheme"),
        ("javascript:void(0)", "scheme"),
        ("#top", "fragment"),
        ("", "empty"),
        ("{{url}}", "template"),
        ("https://example.com/{{ name }}", "template"),
        ("https://example.com/{%x%}", "template"),
        ("[[url]]", "template"),
        ("*|URL|*", "template"),
        ("https://example.com/${x}", "template"),
        ("https://example.com/%%name%%", "template"),
        ("/path", "relative"),
        ("//example.com/x", "relative"),
        ("https://user@example.com", "unsafe"),
        ("https:example.com", "unsafe"),
        ("https://t.example.net/c/x", "own"),
        ("HTTPS://T.example.net", "own"),
        ("https://listed.example/x", "listed"),
        ("https://www.listed.example", "listed"),
        ("https://example.com/" + "a1b2" * 2_000, "too_long"),
        ("https://example.com/" + "a1b2" * 3_000, "too_long"),
    ],
)
def test_a_link_that_is_not_ours_to_track_is_left_alone_and_counted(href: str, reason: str) -> None:
    message = html(f'<a href="{href}">x</a>')
    result = rewrite(message, plan(untracked=frozenset({"listed.example"}), bottom=False, unsubscribe=False), sign)
    assert result.message == message
    assert result.skipped == {reason: 1}


@pytest.mark.parametrize("off", ['tracking="off"', "tracking=off", "TRACKING='Off'"])
@pytest.mark.parametrize("tag", ['<a {} href="{}">', '<a href="{1}" {0}>', '<a class="c" {} id=i href={}>'])
def test_tracking_is_off_wherever_the_tag_says_so(tag: str, off: str) -> None:
    message = html(tag.format(off, "https://example.com"))
    result = rewrite(message, plan(bottom=False, unsubscribe=False), sign)
    assert (result.message, result.skipped) == (message, {"off": 1})


def test_links_in_conditional_comments_are_rewritten_where_that_is_wanted() -> None:
    page = (
        "<!--[if mso]><v:roundrect href=\"https://vml.example/\"><a href='https://a.example'>x</a><![endif]-->"
        '<!-- <a href="https://comment.example">x</a> --><!--[if !mso]><!--><a href="https://shown.example">x</a>'
    )
    assert targets(done(page)) == ["https://shown.example"]
    assert targets(done(page, office=True)) == ["https://vml.example/", "https://a.example", "https://shown.example"]


def test_what_only_looks_like_a_link_is_none() -> None:
    page = (
        "<img alt='<a href=\"https://1.example\">'><style><a href=https://2.example></style>"
        "<title><a href=https://3.example></title><abbr href=https://4.example><!--<a href=https://5.example>-->"
        "<img data-href=https://6.example href=https://7.example><a data-href=https://8.example>"
    )
    assert targets(done(page)) == []


def test_an_address_without_quotes_keeps_none_and_entities_come_back() -> None:
    message = html("<a href=https://example.com/?a&b>x")
    result = rewrite(message, plan(bottom=False), lambda link: f"{BASE}/?x&y='{link.place}'")
    assert body_of(result.message) == b'<a href="https://t.example.net/?x&amp;y=&#x27;1&#x27;">x'
    result = rewrite(message, plan(bottom=False), lambda link: f"{BASE}/c/1")
    assert body_of(result.message) == b"<a href=https://t.example.net/c/1>x"


def test_links_of_the_text_part_are_rewritten_where_that_is_wanted() -> None:
    text = (
        "See https://example.com/a. (Or http://example.com/b_(c)?) <https://example.com/d>, xhttps://e.example\r\n"
        '"https://example.com/f", https://t.example.net/own https://example.com/{{g}} https://example.com/ж'
    )
    assert done(text, type_="text/plain").links == 0
    result = done(text, type_="text/plain; charset=utf-8", text=True)
    assert targets(result) == [
        "https://example.com/a",
        "http://example.com/b_(c)",
        "https://example.com/d",
        "https://e.example",
        "https://example.com/f",
    ]
    assert result.skipped == {"own": 1, "template": 1, "charset": 1}
    assert result.pixels == 0


def test_amp_has_pixels_of_its_own_kind() -> None:
    result = done('<body><a href="https://example.com">x</a></body>', type_="text/x-amp-html", top=True)
    assert (result.links, result.pixels) == (1, 2)
    assert re.fullmatch(
        rb'<body><amp-img src="[^"]+" width="1" height="1" layout="fixed" alt=""></amp-img><a .*</a>'
        rb'<amp-img src="[^"]+" width="1" height="1" layout="fixed" alt=""></amp-img></body>',
        body_of(result.message),
    )


# pixels


@pytest.mark.parametrize(
    "page",
    [
        "{top}x{bottom}",
        "<html>{top}x{bottom}",
        "<!DOCTYPE html>{top}x{bottom}",
        "<html><head></head>{top}x{bottom}",
        '<html><head></head><body class="c">{top}x{bottom}</body></html>',
        "<BODY>{top}<!-- </body> -->{bottom}</BODY>",
        "<body>{top}</body>x{bottom}</body>",
    ],
)
def test_pixels_stand_first_and_last(page: str) -> None:
    result = done(page.format(top="", bottom=""), top=True, unsubscribe=False)
    place = {link.place: sign(link) for link in signed(result.message)}
    pixel = '<img src="{}" width="1" height="1" alt="">'
    assert body_of(result.message).decode() == page.format(top=pixel.format(place[1]), bottom=pixel.format(place[2]))


@pytest.mark.parametrize("page", ["<p>x<!-- x", "<p>x<style>x", '<p>x<a href="x', "<p>x<plaintext>"])
def test_a_page_that_ends_in_the_middle_has_no_pixel_there(page: str) -> None:
    result = done(page)
    assert (result.pixels, body_of(result.message)) == (0, page.encode())
    assert "no_place" in codes(result)


def test_only_the_first_page_of_a_message_has_pixels() -> None:
    part = "--b\r\nContent-Type: text/html\r\n\r\n<p>x\r\n"
    result = done(part * 2 + "--b--\r\n", type_="multipart/mixed; boundary=b")
    assert result.pixels == 1


# lines


def test_a_7bit_line_grows_no_longer_than_990_octets() -> None:
    link = '<a href="https://example.com/{}">x</a>'
    page = "".join(link.format(number) for number in range(15)) + "\r\n" + link.format("next")
    result = done(page)
    assert result.skipped["too_long"] > 5
    assert result.links > 3
    assert max(map(len, result.message.splitlines())) <= LINE_LIMIT
    assert targets(result)[-1].endswith("next")


def test_a_pixel_that_finds_no_room_has_a_line_of_its_own() -> None:
    result = done("x" * 980)
    assert result.pixels == 1
    assert [len(line) for line in body_of(result.message).splitlines()][:1] == [980]


def test_a_line_that_was_too_long_before_is_left_as_it_was() -> None:
    page = "x" * 2_000 + '<a href="https://example.com/">x</a>'
    assert done(page, bottom=False).skipped == {"too_long": 1}


def test_an_address_over_several_lines_counts_with_the_lines_around_it() -> None:
    page = '<a href="https://example.com/a\r\nb">' + "x" * 900 + '<a href="https://example.com/c">'
    result = done(page, bottom=False)
    assert result.skipped["too_long"] >= 1
    assert max(map(len, result.message.splitlines())) <= LINE_LIMIT
    page = '<a href="https://one.example/"><a href="https://example.com/a\r\nb">' + "x" * 700 + f'<a href="{BASE}">'
    assert max(map(len, done(page).message.splitlines())) <= LINE_LIMIT


def test_quoted_printable_is_folded_where_the_links_were() -> None:
    page = (
        "<p>=D0=96"
        + '<a href=3D"https://exam=\r\nple.com/?a=3D1">x</a>' * 3
        + "<b title=3D=\r\n'y'>tail\r\nnext=20\r\n"
    )
    message = html(page, "Content-Transfer-Encoding: quoted-printable")
    result = rewrite(message, plan(bottom=False), sign)
    assert result.links == 3
    body = body_of(result.message)
    assert all(len(line) <= 76 for line in body.splitlines())
    joined = body.replace(b"=\r\n", b"")
    assert re.sub(rb"https://t\.example\.net/c/[\w-]+", b"https://example.com/?a=3D1", joined) == page.encode().replace(
        b"=\r\n", b""
    )
    assert body.endswith(b"'y'>tail\r\nnext=20\r\n")


# what stays whole


def test_signed_encrypted_and_attached_parts_stay_as_they_were() -> None:
    link = '<a href="https://example.com/">x</a>'
    page = f"Content-Type: text/html\r\n\r\n{link}\r\n"
    parts = [
        f"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n{page}--s\r\n\r\nz\r\n--s--\r\n",
        f"Content-Type: message/rfc822\r\n\r\n{page}",
        f"Content-Disposition: attachment; filename=a.html\r\n{page}",
        f"Content-Type: application/pkcs7-mime\r\n\r\n{link}\r\n",
        "Content-Type: text/plain\r\n\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\nhttps://example.com\r\n",
        f"Content-Type: text/html\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\n{link}\r\n",
        f"Content-Type: text/html; charset=utf-7\r\n\r\n{link}\r\n",
        "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!\r\n",
        f"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{link}\r\n",
    ]
    whole = "".join(f"--b\r\n{part}" for part in parts)
    result = done(f"{whole}--b\r\n{page}--b--\r\n", type_='multipart/mixed; boundary="b"', text=True)
    assert result.links == 1
    assert body_of(result.message).startswith(whole.encode())
    assert {"signed_part", "unknown_encoding", "unknown_charset", "malformed_mime"} <= codes(result)


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        ("multipart/mixed", "--b\r\n"),
        ("multipart/mixed; boundary=b", "no delimiter"),
        ("multipart/mixed; boundary=b", "--b\r\nContent-Type: text/html\r\n\r\n<a href=https://example.com>"),
        ("multipart/mixed; boundary=b", "--b--\r\n"),
        ("multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64", "--b\r\n\r\nx\r\n--b--"),
        ("text/html\r\nContent-Type: text/plain", "<a href=https://example.com>"),
        ("nonsense", "<a href=https://example.com>"),
        ("text/html\r\nno field", "<a href=https://example.com>"),
    ],
)
def test_malformed_mime_is_left_alone_with_a_note(type_: str, body: str) -> None:
    message = html(body, type_=type_)
    result = rewrite(message, plan(unsubscribe=False), sign)
    assert result.message == message
    assert "malformed_mime" in codes(result)


def test_a_boundary_is_a_whole_line() -> None:
    inner = "--bb\r\nContent-Type: text/html\r\n\r\n<a href=https://example.com>x</a>--b\r\n --b\r\n--bbb\r\n"
    inner += "\r\n--bb--  \r\n"
    message = f"--b\r\nContent-Type: multipart/related;\r\n boundary=bb\r\n\r\n{inner}--b--\r\nepilogue --b--"
    result = done(message, type_='multipart/mixed; x="; boundary=no"; Boundary="b"', bottom=False)
    assert result.links == 1


def test_a_message_nested_without_end_is_given_up() -> None:
    head = "".join(f"--{n}\r\nContent-Type: multipart/mixed; boundary={n + 1}\r\n\r\n" for n in range(100, 200))
    tail = "".join(f"--{n}--\r\n" for n in range(200, 99, -1))
    result = done(f"{head}--200\r\n\r\nx\r\n{tail}", type_="multipart/mixed; boundary=100")
    assert "too_many_parts" in codes(result)


def test_a_message_with_line_feeds_alone_keeps_them() -> None:
    message = html('<a href="https://example.com">x</a>\r\n').replace(b"\r\n", b"\n")
    result = rewrite(message, plan(), sign)
    assert b"\r" not in result.message
    assert (result.links, result.pixels) == (1, 1)
    assert read_message(result.message).notes == []


# header


def test_one_click_unsubscribe_is_offered_as_the_standard_wants() -> None:
    result = done("<p>x")
    parsed = message_from_bytes(result.message, policy=policy.SMTP)
    assert parsed["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert re.fullmatch(r"<https://t\.example\.net/u/[\w-]+>", parsed["List-Unsubscribe"])
    link = next(link for link in signed(result.message) if link.purpose is Purpose.UNSUBSCRIBE)
    assert link.recipient == "alice@example.org"
    assert "sign_after" in codes(result)


@pytest.mark.parametrize("name", ["headers_http_only_invalid", "headers_mailto_and_https", "headers_simple"])
def test_an_unsubscribe_that_is_there_stays(name: str) -> None:
    """Also one that no mail program would offer: it is the sender's own."""
    present = (UNSUBSCRIBE / f"{name}.txt").read_text().rstrip("\n").replace("\n", "\r\n")
    message = html("<p>x", present)
    assert rewrite(message, plan(bottom=False), sign).message == message


@pytest.mark.parametrize(
    ("address_", "code"),
    [
        ("http://t.example.net/u/x", "unsubscribe_not_https"),
        (BASE + "/u/" + "x" * UNSUBSCRIBE_LIMIT, "unsubscribe_too_long"),
        (BASE + "/u/" + "x" * 2_000, "unsubscribe_too_long"),
    ],
)
def test_an_unsubscribe_that_nobody_would_offer_is_not_added(address_: str, code: str) -> None:
    message = html("<p>x")
    result = rewrite(message, plan(bottom=False), lambda link: address_)
    assert result.message == message
    assert code in codes(result)


def test_a_post_field_without_the_other_is_completed_or_refused() -> None:
    assert done("x", "List-Unsubscribe-Post: List-Unsubscribe=One-Click").message.count(b"One-Click") == 1
    assert "unsubscribe_refused" in codes(done("x", "List-Unsubscribe-Post: something=else"))


def test_a_signature_made_before_is_told_to_be_broken() -> None:
    assert "signed_before" in codes(done("<p>x", "DKIM-Signature: v=1"))
    assert "signed_before" not in codes(done("<p>x", "DKIM-Signature: v=1", bottom=False, unsubscribe=False))


def test_fields_of_ours_are_read_and_removed() -> None:
    fields = (
        "X-Aftersend-Recipient: bob@example.org",
        "x-aftersend-message: m-7\r\n folded",
        "X-Aftersend-Campaign: spring",
        "X-Aftersend-List: news",
        "X-Aftersend-Tracking: Anonymous",
    )
    result = done("<p>x", *fields, recipient="carol@example.org", unsubscribe=False)
    assert result.message.startswith(
        b"From: n@example.com\r\nTo: Alice <alice@example.org>\r\nMessage-ID: <m1@example.com>\r\nMIME"
    )
    (link,) = signed(result.message)
    assert link == Link(Purpose.OPEN, Level.ANONYMOUS, 3, 5, "bob@example.org", "m-7 folded", "spring", "news", place=2)


def test_a_field_of_ours_that_is_not_known_is_removed_and_told() -> None:
    result = done("x", "X-Aftersend-Recipent: bob@example.org", "X-Aftersend-Campaign: " + "x" * 600)
    assert b"ftersend" not in result.message
    assert "unknown_header" in codes(result)


@pytest.mark.parametrize(
    ("most", "said", "level"),
    [
        (Level.FULL, "anonymous", Level.ANONYMOUS),
        (Level.ANONYMOUS, "full", Level.ANONYMOUS),
        (Level.ANONYMOUS, "none", Level.NONE),
        (Level.FULL, "nonsense", Level.NONE),
        (Level.FULL, "x" * 600, Level.NONE),
    ],
)
def test_a_message_can_lower_its_level_and_not_raise_it(most: Level, said: str, level: Level) -> None:
    result = done('<a href="https://example.com">x</a>', f"X-Aftersend-Tracking: {said}", level=most, unsubscribe=False)
    assert {link.level for link in signed(result.message)} == ({level} if level else set())


def test_no_more_is_tracked_than_the_recipient_allows() -> None:
    levels = {"alice@example.org": Level.NONE, "bob@example.org": Level.ANONYMOUS, "": Level.NONE}

    def levels_in(*fields: str, **options: Any) -> list[Level]:
        asked = plan(level_of=lambda person: levels.get(person, Level.FULL), unsubscribe=False, **options)
        return [
            link.level
            for link in signed(rewrite(html('<a href="https://example.com/">x</a>', *fields), asked, sign).message)
        ]

    assert levels_in() == [], "neither a link nor a pixel"
    assert set(levels_in(recipient="bob@example.org")) == {Level.ANONYMOUS}
    assert set(levels_in("X-Aftersend-Recipient: carol@example.org")) == {Level.FULL}
    assert set(levels_in("X-Aftersend-Recipient: carol@example.org", level=Level.ANONYMOUS)) == {Level.ANONYMOUS}
    assert levels_in("X-Aftersend-Recipient: bob@example.org", "X-Aftersend-Tracking: none") == []


def test_a_level_that_cannot_be_read_is_no_leave_to_track() -> None:
    def level_of(person: str) -> Level:
        raise StoreError

    with pytest.raises(StoreError):
        rewrite(html("<p>x"), plan(level_of=level_of), sign)


def test_without_tracking_only_the_unsubscribe_is_added() -> None:
    page = '<a href="https://example.com">x</a>'
    result = done(page, level=Level.NONE)
    assert body_of(result.message) == page.encode()
    assert [link.purpose for link in signed(result.message)] == [Purpose.UNSUBSCRIBE]


@pytest.mark.parametrize("to", ["a@example.org, b@example.org", "undisclosed-recipients:;", "nobody", ""])
def test_a_message_to_nobody_or_several_names_no_person(to: str) -> None:
    message = html("<p>x").replace(b"Alice <alice@example.org>", to.encode())
    result = rewrite(message, plan(), sign)
    assert {link.recipient for link in signed(result.message)} == {""}
    assert b"List-Unsubscribe" not in result.message
    assert "no_recipient" in codes(result)
    assert {link.recipient for link in signed(rewrite(message, plan(recipient="r@example.org"), sign).message)} == {
        "r@example.org"
    }


# whole


def test_growth_is_told_and_a_page_past_100_kb_is_warned_of() -> None:
    small, large = done("<p>" + "x\r\n" * 1_000), done("<p>" + "x\r\n" * 34_000)
    assert small.growth == len(small.message) - len(html("<p>" + "x\r\n" * 1_000))
    assert "large" not in codes(small)
    assert "large" in codes(large)


def test_what_the_signer_refuses_is_raised_unless_it_is_too_long() -> None:
    def refuse(link: Link) -> str:
        raise LinkError("unknown_key")

    with pytest.raises(LinkError):
        rewrite(html("<p>x"), plan(), refuse)


def test_every_notice_says_something() -> None:
    assert all(len(text) > 20 for text in NOTICES.values())


def test_a_message_that_halon_rewrote_is_tracked_by_nobody_else() -> None:
    path = Path(__file__).parents[1] / "fixtures" / "capture" / "halon_rewritten.eml"
    message = path.read_bytes()
    halon = Plan(tenant=1, domain=1, own_hosts=frozenset({"track.example.com"}), bottom=False)
    result = rewrite(message, halon, sign)
    assert result.message == message
    assert result.skipped == {"own": 1, "off": 1, "scheme": 1, "fragment": 1}


# pages of our own


PAGES = (
    '<a href="aftersend:preferences">p</a><a href=" aftersend:Unsubscribe ">u</a><a href=aftersend:confirm>c</a>'
    '<a href="aftersend:dance">d</a>'
)


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("clicks", [True, False])
def test_a_message_can_link_to_our_own_pages_whatever_is_tracked(level: Level, clicks: bool) -> None:
    result = done(PAGES, level=level, clicks=clicks, bottom=False, unsubscribe=False)
    found = {link.purpose: link for link in signed(result.message)}
    assert found.keys() == {Purpose.PREFERENCES, Purpose.UNSUBSCRIBE, Purpose.CONFIRM}
    assert {link.recipient for link in found.values()} == {"alice@example.org"}
    assert b'href="aftersend:dance"' in result.message
    assert result.links == 3


def test_a_message_for_nobody_in_particular_has_no_pages() -> None:
    message = html(PAGES).replace(b"To: Alice <alice@example.org>\r\n", b"")
    assert b'"aftersend:preferences"' in rewrite(message, plan(), sign).message


def test_the_picture_for_reading_time_stands_at_the_bottom_where_it_is_wanted() -> None:
    body = "<html><body><p>x</p></body></html>"
    assert Purpose.READ not in {link.purpose for link in signed(done(body).message)}
    result = done(body, reading=True, bottom=False, unsubscribe=False)
    assert [link.purpose for link in signed(result.message)] == [Purpose.READ]
    assert b'alt=""></body>' in result.message
    assert result.pixels == 1
    assert list(signed(done(body, reading=True, level=Level.NONE, unsubscribe=False).message)) == []
