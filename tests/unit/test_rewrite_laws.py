"""Laws of rewriting: what a parser finds is what was rewritten, and every other byte stays.

The parser is selectolax (lexbor), which follows the HTML standard; it says which links a page has and what they mean.
"""

import quopri
import re
from base64 import b64decode, b64encode
from binascii import a2b_qp, b2a_qp

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from aftersend.capture.hrefs import judge, read_attribute
from aftersend.capture.links import Link
from aftersend.capture.plan import Plan
from aftersend.capture.rewrite import rewrite

OWN = "t.example.net"
ADDRESS = re.compile(rf"https://{OWN}/[co]/([0-9a-f]*)")
PLAN = Plan(tenant=1, domain=1, own_hosts=frozenset({OWN}), untracked=frozenset({"plain.example"}), bottom=False)


def sign(link: Link) -> str:
    """An address from which the target can be read."""
    return f"https://{OWN}/{link.purpose[0]}/{link.target.encode('utf-8', 'surrogatepass').hex()}"


TO = b"To: a@example.org\nContent-Transfer-Encoding: binary\nContent-Type: text/html; charset="


def unsigned(href: str) -> str:
    """What a rewritten address stands for; any other as it is, without what browsers drop."""
    match = ADDRESS.fullmatch(href)
    return bytes.fromhex(match[1]).decode() if match else cleaned(href)


def cleaned(href: str) -> str:
    return re.sub(r"[\t\n\r]+", "", href).strip("".join(map(chr, range(33))))


# pages

WORDS = {
    "utf-8": ["Привет", "naïve", "日本語", "😀", "plain"],
    "us-ascii": ["plain", "words"],
    "iso-8859-1": ["café", "naïve"],
    "koi8-r": ["Привет", "мир"],
    "windows-1251": ["Привет", "мир №"],
    "shift_jis": ["日本語", "表示ソ能", "ｱｲｳ"],
    "iso-2022-jp": ["日本語", "表示", "アゼゾ"],
    "gb18030": ["中文", "丂", "𠮷"],
    "big5": ["中文", "功許蓋"],
    "euc-kr": ["한국어"],
    "utf-16": ["Привет", "😀"],
    "utf-16-le": ["Привет", "日本語"],
    "utf-32": ["мир"],
}
TARGETS = [
    "https://example.com/",
    "http://example.com/a?b=1&amp;c=2",
    "https://example.com/?a=1&copy=2&amp;lt;&lt=3&not;in&notin;&#38;x&#x26;y",
    "https://example.com/a b",
    " https://example.com/around\n",
    "https://example.com/bro\r\n   ken",
    "HTTPS://EXAMPLE.com/%zz%20?q=%%d",
    "https://example.com:8080/a(b)c'd",
    "https://example.com/{{name}}",
    "https://example.com/*|NAME|*",
    "[[link]]",
    "${link}",
    "%%link%%",
    "{% url x %}",
    "https://plain.example/x",
    "https://www.plain.example/x",
    "https://notplain.example/x",
    f"https://{OWN}/x",
    f"https://{OWN}.evil.example/x",
    "mailto:a@example.com",
    "tel:+1",
    "#top",
    "",
    "/relative",
    "//example.com/x",
    "https://user@example.com/",
    "https:\\\\example.com",
    "javascript:alert(1)",
    "java&#10;script:x",
    "https://пример.рф/путь",
    "https://example.com/日本",
]
NAMES = ["a", "A", "area", "AREA", "abbr", "address", "p", "td", "b", "img", "x-a", "a:b"]
OTHER_ATTRIBUTES = [
    "class=c",
    'title="a > b"',
    "title='<a href=\"https://hidden.example/\">'",
    'alt="x',
    "hidden",
    "=odd",
    '"quoted"',
    "data-href=https://data.example/",
    "tracking",
    "/",
    "{{#if x}}",
    "a=b=c",
    'x=y"z',
    "<b",
]
OFF = ['tracking="off"', "tracking=off", "TRACKING='OFF'", 'tracking = " off "']
FIXED = [
    "<!-- a comment <a href='https://comment.example/'>x</a> -->",
    "<!--[if mso]><a href=\"https://office.example/\">x</a><v:rect href='https://vml.example/'></v:rect><![endif]-->",
    "<!--[if !mso]><!-->",
    "<!--<![endif]-->",
    "<!-->",
    "<!--->",
    "<!-- x --!>",
    "<!---->",
    "<!--- a -- b --- c -->",
    "<!doctype html>",
    "<![if x]>",
    "<?php echo '<a href=https://php.example/>' ?>",
    "</>",
    "</ a href='>'>",
    "</p title='a > b'>",
    "</a>",
    "</td></tr></table>",
    "<table><tr><td>",
    "<body class=x>",
    "</body>",
    "</html>",
    "<html>",
    "</head>",
    "<style>a { content: '<a href=https://style.example/>' }</style>",
    "<style></styles><a href=https://style.example/></style >",
    "<title><a href=https://title.example/></title>",
    "<script>x = '<a href=https://script.example/>'</script>",
    "<textarea><a href=https://area.example/></textarea>",
    "<xmp><a href=https://xmp.example/></xmp>",
    "<br/>",
    "a < b & c > d &amp; &nbsp; &unknown;",
    "<3 <",
    "=\"'",
    "\r\n",
    "\t \n",
    "= =\r\n=3D",
    ".",
    "From me",
]


@st.composite
def attributes(draw: st.DrawFn) -> str:
    """An `href` in some spelling."""
    target = draw(st.sampled_from(TARGETS))
    quote = draw(st.sampled_from(['"', "'", ""]))
    if not quote:
        target = re.sub(r"[\s\"'<>`=]", "", target)
    equals = draw(st.sampled_from(["=", " = ", "=\n", "\t="])) if quote else "="
    return draw(st.sampled_from(["href", "HREF", "Href"])) + equals + quote + target + quote


@st.composite
def tags(draw: st.DrawFn) -> str:
    """A tag with some attributes."""
    found = draw(st.lists(st.one_of(attributes(), st.sampled_from(OTHER_ATTRIBUTES + OFF)), max_size=4))
    space = draw(st.sampled_from([" ", "\n", "\r\n\t", "/", "  "]))
    end = draw(st.sampled_from([">", " >", " />", "\n>"]))
    return "<" + draw(st.sampled_from(NAMES)) + "".join(space + each for each in found) + end


def texts(words: list[str]) -> st.SearchStrategy[str]:
    """A text that is longer than a line of quoted-printable now and then."""
    return st.lists(st.sampled_from(words), max_size=30).map(" ".join)


@st.composite
def pages(draw: st.DrawFn) -> tuple[str, bytes]:
    """A page, with its charset."""
    charset = draw(st.sampled_from(list(WORDS)))
    pieces = draw(
        st.lists(
            st.one_of(tags(), st.sampled_from(FIXED), texts(WORDS[charset]), attributes()), min_size=1, max_size=25
        )
    )
    return charset, "".join(pieces).encode(charset, "ignore")


def quoted(content: bytes, newline: bytes) -> bytes:
    """Quoted-printable by the standard library, in any line break."""
    return quopri.encodestring(content).replace(b"\r\n", b"\n").replace(b"\n", newline)


def wrapped(content: bytes, newline: bytes, width: int) -> bytes:
    text = b64encode(content)
    return newline.join(text[at : at + width] for at in range(0, len(text), width)) + newline


@st.composite
def mails(draw: st.DrawFn) -> tuple[str, str, bytes, bytes]:
    """Charset, encoding, content and message of an HTML mail."""
    charset, content = draw(pages())
    newline = draw(st.sampled_from([b"\r\n", b"\n"]))
    encoding = draw(st.sampled_from(["8bit", "binary", "quoted-printable", "base64"]))
    if encoding == "8bit" and charset.startswith("utf-") and charset != "utf-8":
        encoding = "base64"
    body = content
    if encoding == "quoted-printable" and not single_byte(charset):
        body = b2a_qp(content, istext=False)
    elif encoding == "quoted-printable":
        content = content.replace(b"\r\n", b"\n").replace(b"\n", newline)
        body = quoted(content, newline)
        content = a2b_qp(body)
    elif encoding == "base64":
        body = wrapped(content, newline, draw(st.sampled_from([60, 72, 76])))
    head = [
        b"To: alice@example.org",
        b'Content-Type: text/html;\r\n charset="%s"'.replace(b"\r\n", newline) % charset.encode(),
        b"Content-Transfer-Encoding: " + encoding.encode(),
        newline,
    ]
    return charset, encoding, content, newline.join(head) + body


def body_of(message: bytes) -> bytes:
    return re.split(rb"\r?\n\r?\n", message, maxsplit=1)[1]


def content_of(message: bytes, encoding: str) -> bytes:
    """The decoded body, by the standard library."""
    body = body_of(message)
    if encoding == "base64":
        return b64decode(body)
    return a2b_qp(body) if encoding == "quoted-printable" else body


def hrefs(content: bytes, charset: str) -> list[tuple[str, bool]]:
    """What a parser says of the links, and whether each is to be left alone."""
    tree = LexborHTMLParser(content.decode(charset, "replace"))
    return [
        (node.attributes["href"] or "", (node.attributes.get("tracking") or "").strip().lower() == "off")
        for node in tree.css("a[href], area[href]")
    ]


def differs_in_addresses_only(before: bytes, after: bytes, codec: str) -> bool:
    """Whether nothing but addresses was put in place of anything, and each in place of what means the same."""
    signed = re.compile(rb"https://t\.example\.net/[co]/([0-9a-f]*)")
    kept, at, targets = [], 0, []
    for match in signed.finditer(after):
        # Own addresses stood in the page before, and lead nowhere.
        if match[1]:
            kept.append(after[at : match.start()])
            targets.append(bytes.fromhex(match[1].decode()).decode())
            at = match.end()
    pattern = b"(.*?)".join(re.escape(piece) for piece in [*kept, after[at:]])
    match_ = re.fullmatch(pattern, before, re.DOTALL)
    return match_ is not None and targets == [
        cleaned(read_attribute(group.decode(codec))).strip() for group in match_.groups()
    ]


def single_byte(charset: str) -> bool:
    return not re.match("utf-(16|32)", charset)


COVERED = "<Привет<a href='https://example.com/'>"


@settings(max_examples=400, deadline=None)
@given(mails())
@example(("utf-16-le", "binary", COVERED.encode("utf-16-le"), TO + b"utf-16-le\n\n" + COVERED.encode("utf-16-le")))
def test_the_links_of_the_parser_are_the_links_that_were_rewritten(mail: tuple[str, str, bytes, bytes]) -> None:
    charset, encoding, content, message = mail
    result = rewrite(message, PLAN, sign)
    assert_same_links(content, content_of(result.message, encoding), charset)


E = "https://e.example/"
ODD = [
    f'<a href="{E}1" href="{E}2">',
    f'<a class="c" HREF="{E}1" href="{E}2" id="i">',
    f"<a href={E}1 href='{E}2'>",
    f'<p ="><a href="{E}">">',
    f'<p ="><a href={E}>"><a href="{E}2">',
    f'<a ="x>" href="{E}">',
    f'<a x ="y" href="{E}">',
    f'<a=" href="{E}">',
    f'<a href="{E}"class="c"title="t">',
    f'<a class="c"href="{E}">',
    f'<a/href="{E}"/>',
    f"<a href={E}/>",
    f'<a href ="{E}">',
    f'<a href= "{E}">',
    f'<a href\n=\n"{E}">',
    f'<a data-href="{E}1" href="{E}2">',
    f'<a hrefx="{E}1" xhref="{E}2">',
    f'<a title="a > b" href="{E}">',
    f'<a title=\'<a href="{E}1">\' href="{E}2">',
    f'<a title=">" x=">"y=">" href="{E}">',
    f'<a tracking="off" href="{E}"><a href="{E}" tracking="off"><a href="{E}" Tracking=OFF><a tracking=on href="{E}">',
    f'<a href="{E}" <a href="{E}2">',
    f'<td <a href="{E}">',
    f'<td class="c" <b href="{E}1"><a href="{E}2">',
    f'<td class="c"{{{{#if x}}}} y="z"{{{{/if}}}}><a {{{{#if x}}}}class="b"{{{{/if}}}} href="{E}">',
    f'</td class="><a href={E}1>"><a href="{E}2">',
    f'</ td ="><a href={E}>">',
    f'<!x "><a href="{E}">">',
    f'<!-- -- --! -> "><a href="{E}1">--><a href="{E}2">',
    f'<!--><a href="{E}1">--><!---><a href="{E}2">--><!----!><a href="{E}3">',
    f'<!--[if x]><a href="{E}1"><!-- --><a href="{E}2"><![endif]-->',
    f'<A HREF="{E}"><aREa hReF="{E}"><ab href="{E}"><a:b href="{E}">',
    f'<a\thref="{E}"><a\fhref="{E}"><a\x0bhref="{E}">',
    f'<style/><a href="{E}1"></style/><a href="{E}2">',
    f"<title></titl><a href={E}1></TITLE\n><a href={E}2>",
    f'<a href="{E}',
    f'<a href=\'{E}><a href="{E}">',
    f'<a href="{E}1"><plaintext><a href="{E}2">',
    f'<a href><a href=><a href=""><a href=\'\'><a href="{E}">',
]
JAPANESE = "アゼゾ"
"""In ISO-2022-JP these hold a quote and both angle brackets."""


@pytest.mark.parametrize("page", ODD)
def test_odd_pages_have_the_links_that_the_parser_finds(page: str) -> None:
    page = f"x{page}x<p title='y'>"
    result = rewrite(TO + b"utf-8\n\n" + page.encode(), PLAN, sign)
    assert_same_links(page.encode(), body_of(result.message), "utf-8")
    assert differs_in_addresses_only(page.encode(), body_of(result.message), "utf-8")


def test_what_stands_between_shifts_is_no_markup() -> None:
    page = f'{JAPANESE}<a title="{JAPANESE}" href="{E}{JAPANESE}" id="{JAPANESE}">{JAPANESE}</a>'.encode("iso-2022-jp")
    assert b'%"' in page
    assert b"%<" in page
    result = rewrite(TO + b"ISO-2022-JP\n\n" + page, PLAN, sign)
    assert result.links == 1
    assert_same_links(page, body_of(result.message), "iso-2022-jp")


def test_lines_of_quoted_printable_stay_short_whatever_follows_a_link() -> None:
    for tail in range(80):
        page = b'<a href=3D"https://e.example/">' + b"x" * (76 - 31 - 1) + b"=\n" + b"y" * tail + b"\n"
        head = TO.replace(b"binary", b"quoted-printable") + b"utf-8\n\n"
        for width in range(20):
            result = rewrite(head + page, PLAN, lambda link, width=width: f"https://{OWN}/" + "z" * (60 + width))
            assert max(map(len, body_of(result.message).splitlines())) <= max(76, tail)


def assert_same_links(before: bytes, after: bytes, charset: str) -> None:
    """Whether a parser finds the same links, those to be tracked rewritten and the others as they were."""
    old, new = hrefs(before, charset), hrefs(after, charset)
    assert [(unsigned(href), off) for href, off in new] == [(cleaned(href), off) for href, off in old]
    for (href, off), (found, _) in zip(old, new, strict=True):
        tracked = not off and not judge(href, PLAN.own_hosts, PLAN.untracked).reason and "\ufffd" not in href
        assert bool(ADDRESS.fullmatch(found) and found != href) == tracked, (href, found)


@settings(max_examples=400, deadline=None)
@given(mails())
def test_outside_the_addresses_no_decoded_byte_changes(mail: tuple[str, str, bytes, bytes]) -> None:
    charset, encoding, content, message = mail
    result = rewrite(message, PLAN, sign)
    after = content_of(result.message, encoding)
    if single_byte(charset):
        assert differs_in_addresses_only(content, after, charset)
    else:
        assert differs_in_addresses_only(content.decode(charset).encode(), after.decode(charset).encode(), "utf-8")
        assert after.decode(charset).encode(charset) == after or charset != "utf-16"


@settings(max_examples=200, deadline=None)
@given(mails())
def test_outside_the_addresses_no_raw_byte_of_quoted_printable_changes(mail: tuple[str, str, bytes, bytes]) -> None:
    charset, encoding, _, message = mail
    if encoding != "quoted-printable" or not single_byte(charset):
        return
    result = rewrite(message, PLAN, sign)
    before, after = (re.sub(rb"=\r?\n", b"", body_of(each)) for each in (message, result.message))
    kept = re.split(rb"https://t\.example\.net/[co]/[0-9a-f]+", after)
    assert re.fullmatch(b".*?".join(map(re.escape, kept)), before, re.DOTALL)
    if max(map(len, body_of(message).splitlines()), default=0) <= 76:
        assert max(map(len, body_of(result.message).splitlines()), default=0) <= 76


@settings(max_examples=200, deadline=None)
@given(mails(), st.booleans(), st.booleans())
def test_a_pixel_is_the_only_thing_that_is_added(mail: tuple[str, str, bytes, bytes], top: bool, bottom: bool) -> None:
    charset, encoding, content, message = mail
    plan = Plan(tenant=1, domain=1, own_hosts=frozenset({OWN}), clicks=False, top=top, bottom=bottom)
    result = rewrite(message, plan, lambda link: f"https://{OWN}/pixel{link.place}")
    after = content_of(result.message, encoding)
    for place in (1, 2):
        pixel = f'<img src="https://{OWN}/pixel{place}" width="1" height="1" alt="">'
        codec = "utf-16-le" if charset == "utf-16" else "utf-32-le" if charset == "utf-32" else charset
        after = after.replace(pixel.encode(codec), b"", 1)
    if encoding == "8bit":
        # Here a pixel may have a line of its own.
        after, content = (re.sub(rb"[\r\n]", b"", each) for each in (after, content))
    assert after == content
    assert result.pixels == top + (bottom and "no_place" not in {notice.code for notice in result.warnings})


BROKEN = [
    b"Content-Type: ",
    b"multipart/mixed; boundary=b",
    b"text/html",
    b"\r\n",
    b"\n",
    b"--b",
    b"--",
    b"--b--",
    b"<a href=",
    b"https://example.com/>",
    b'"',
    b"Content-Transfer-Encoding: ",
    b"base64",
    b"quoted-printable",
    b"=",
    b"=3D",
    b"PGEg",
    b"; charset=",
    b"utf-16",
    b"X: y",
    b" ",
    b"To: a@b",
    b"\r",
    b"\x00",
    b"\xff",
]
EVERYTHING = Plan(tenant=1, domain=1, own_hosts=frozenset({OWN}), text=True, office=True, top=True)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.lists(st.sampled_from(BROKEN), max_size=40).map(b"".join)))
@example(b"")
def test_no_message_is_so_broken_that_rewriting_fails(message: bytes) -> None:
    result = rewrite(message, EVERYTHING, sign)
    assert len(result.message) - len(message) == result.growth
    assert result.links or result.pixels or result.growth or result.message == message


@settings(max_examples=200, deadline=None)
@given(mails())
def test_a_rewritten_message_is_left_alone_the_second_time(mail: tuple[str, str, bytes, bytes]) -> None:
    once = rewrite(mail[3], PLAN, sign)
    again = rewrite(once.message, PLAN, sign)
    assert again.message == once.message
    assert again.links == 0


@given(st.text(), st.text(alphabet="&#xX0123456789abcdefgltmpnoicyt;= "))
def test_references_are_read_as_the_parser_reads_them(left: str, right: str) -> None:
    value = re.sub(r"[\"\x00\r\ud800-\udfff]", "", left + right)
    node = LexborHTMLParser(f'<a href="{value}">').css_first("a")
    assert node is not None
    assert read_attribute(value) == (node.attributes["href"] or "")
