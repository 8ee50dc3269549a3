"""The guard: every form of address that it must refuse, and what it must let through."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aftersend import egress as module
from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.egress import METADATA, RESERVED, Egress, Target

GUARD = Egress()
OPEN = Egress.read(["0.0.0.0/0", "::/0"])
"""What people write who only want it to work."""

REFUSED = """
0.0.0.0             this host
0.1.2.3             this host
10.0.0.0            private
10.255.255.255      private
100.64.0.1          shared address space
100.127.255.255     shared address space
100.100.100.200     cloud metadata
127.0.0.1           loopback
127.255.255.254     loopback
168.63.129.16       cloud metadata
169.254.0.1         link-local, cloud metadata
169.254.169.254     link-local, cloud metadata
169.254.170.2       link-local, cloud metadata
172.16.0.1          private
172.31.255.255      private
192.0.0.1           protocol assignments
192.0.0.192         cloud metadata
192.0.2.1           documentation
192.88.99.1         6to4 relay
192.168.0.1         private
192.168.255.255     private
198.18.0.1          benchmarking
198.19.255.255      benchmarking
198.51.100.1        documentation
203.0.113.1         documentation
224.0.0.1           multicast
239.255.255.255     multicast
240.0.0.1           reserved
255.255.255.254     reserved
255.255.255.255     broadcast
::                  unspecified
::1                 loopback
::2                 this host
::169.254.169.254   link-local, cloud metadata
::8.8.8.8           IPv4-compatible
::ffff:0.0.0.0      this host
::ffff:127.0.0.1    loopback
::ffff:10.0.0.1     private
::ffff:a9fe:a9fe    link-local, cloud metadata
::ffff:192.0.0.192  cloud metadata
::ffff:0:127.0.0.1  loopback
::ffff:0:8.8.8.8    IPv4-translated
64:ff9b::a9fe:a9fe  link-local, cloud metadata
64:ff9b::7f00:1     loopback
64:ff9b::10.1.2.3   private
64:ff9b:1::1        local NAT64, may lead anywhere
64:ff9b:1:a9fe:a9:fe00:: local NAT64, may lead anywhere
100::1              discard
2001::1             this host
2001:0:4136:e378:8000:63bf:3fff:fdd2 documentation
2001:0:4136:e378:8000:63bf:5601:5601 link-local, cloud metadata
2001:0:4136:e378:8000:63bf:f7f7:f7f7 Teredo
2001:2::1           protocol assignments
2001:10::1          protocol assignments
2001:20::1          protocol assignments
2001:db8::1         documentation
2002:a9fe:a9fe::1   link-local, cloud metadata
2002:7f00:1::       loopback
2002:808:808::1     6to4
3fff::1             documentation
5f00::1             segment routing
fc00::1             private
fd12:3456:789a::1   private
fd00:ec2::254       cloud metadata
fd20:ce::254        cloud metadata
fd00:42::42         cloud metadata
fe80::1             link-local
fe80::5efe:10.0.0.1 private
fe80::5efe:8.8.8.8  link-local
febf::1             link-local
fec0::1             site-local
ff02::1             multicast
ff0e::1             multicast
2a00:1450::5efe:192.168.0.1 private
2a00:1450::200:5efe:127.0.0.1 loopback
4000::1             not global unicast
9000::1             not global unicast
200::1              not global unicast
"""

LET_THROUGH = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255
169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
223.255.255.255 2606:4700:4700::1111 2a00:1450:4001:80b::200e 2001:4860:4860::8888 2001:200::1 2003::1
::ffff:8.8.8.8 64:ff9b::8.8.8.8 2a00:1450::5efe:8.8.8.8
"""


def rows(text: str) -> list[tuple[str, str]]:
    lines = [line.split(maxsplit=1) for line in text.strip().splitlines()]
    return [(address, kind) for address, kind in lines]


@pytest.mark.parametrize(("address", "kind"), rows(REFUSED))
def test_an_address_that_leads_inside_is_refused_by_name_of_the_rule(address: str, kind: str) -> None:
    with pytest.raises(EgressError, match=r"^refused: ") as caught:
        GUARD.judge(address)
    assert f"({kind}" in str(caught.value)
    with pytest.raises(EgressError):
        GUARD.judge(ip_address(address))


@pytest.mark.parametrize("address", LET_THROUGH.split())
def test_a_public_address_is_let_through(address: str) -> None:
    GUARD.judge(address)


@pytest.mark.parametrize("row", METADATA + RESERVED, ids=lambda row: str(row.network))
def test_each_network_is_refused_from_its_first_to_its_last_address(row: module.Row) -> None:
    for address in (row.network[0], row.network[-1]):
        with pytest.raises(EgressError):
            GUARD.judge(address)


@given(st.integers(0, 2**32 - 1))
def test_an_address_inside_another_is_judged_like_itself(number: int) -> None:
    inner = IPv4Address(number)
    for prefix in ("::ffff:", "64:ff9b::"):
        assert refuses(GUARD, f"{prefix}{inner}") == refuses(GUARD, str(inner))
    if refuses(OPEN, str(inner)):
        value = int(inner)
        forms = (
            value,
            0xFFFF_0000_0000 << 16 | value,
            0x2002 << 112 | value << 80 | 1,
            0x2001 << 112 | value << 64 | 0xF7F7_F7F7,
            0x2001 << 112 | 0x0808_0808 << 64 | value ^ 0xFFFF_FFFF,
            0x2A00_1450 << 96 | 0x5EFE << 32 | value,
        )
        assert all(refuses(OPEN, str(IPv6Address(form))) for form in forms)


@given(st.ip_addresses())
def test_no_address_is_judged_with_an_exception_of_another_kind(address: IPv4Address | IPv6Address) -> None:
    refuses(GUARD, str(address))
    assert not (refuses(OPEN, str(address)) and not refuses(GUARD, str(address)))


def refuses(guard: Egress, address: str) -> bool:
    try:
        guard.judge(address)
    except EgressError:
        return True
    return False


@pytest.mark.parametrize("row", METADATA, ids=lambda row: str(row.network))
def test_a_wide_allow_does_not_open_metadata(row: module.Row) -> None:
    with pytest.raises(EgressError, match="allow it with --egress-allow-metadata"):
        OPEN.judge(row.network[1 if row.network.num_addresses > 1 else 0])


@pytest.mark.parametrize(
    "address",
    [
        *("::169.254.169.254", "::ffff:169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b::a9fe:a9fe"),
        *("2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe:8000:63bf:f7f7:f7f7", "2001:0:4136:e378:8000:63bf:5601:5601"),
        "2a00:1450::5efe:169.254.169.254",
    ],
)
def test_a_wide_allow_does_not_open_metadata_inside_another_address(address: str) -> None:
    with pytest.raises(EgressError, match=r"carries 169\.254\.169\.254"):
        OPEN.judge(address)


def test_metadata_has_its_own_switch() -> None:
    guard = Egress.read([], ["169.254.169.254/32"])
    guard.judge("169.254.169.254")
    for address in ("169.254.169.253", "10.0.0.1"):
        with pytest.raises(EgressError):
            guard.judge(address)


def test_an_allowed_network_is_open_and_its_neighbour_is_not() -> None:
    guard = Egress.read(["10.1.0.0/16", "fd12::/16"])
    for address in ("10.1.255.255", "::ffff:10.1.0.1", "64:ff9b::10.1.0.1", "fd12::1", "8.8.8.8"):
        guard.judge(address)
    for address in ("10.2.0.0", "fd13::1", "127.0.0.1", "::1"):
        with pytest.raises(EgressError):
            guard.judge(address)


def test_the_rule_and_the_way_out_are_told() -> None:
    with pytest.raises(EgressError) as caught:
        GUARD.judge("10.1.2.3")
    rule = "is in 10.0.0.0/8 (private); allow it with --egress-allow 10.1.2.3/32"
    assert str(caught.value) == f"refused: 10.1.2.3 {rule}"
    with pytest.raises(EgressError) as caught:
        GUARD.judge("::ffff:10.1.2.3")
    assert str(caught.value).endswith(f" carries 10.1.2.3, which {rule}")
    with pytest.raises(EgressError) as caught:
        GUARD.judge("fd12::1")
    assert str(caught.value).endswith("allow it with --egress-allow fd12::1/128")


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "010.0.0.1", "fe80::1%eth0", "2a00::1%1", "1.1.1.1/32", "１.1.1.1"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(EgressError):
        OPEN.judge(text)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "private", "", "10.0.0.0/8,"])
def test_a_switch_that_is_not_a_network_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--egress-allow: "):
        Egress.read([text])


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example", Target("https", "hooks.example", 443)),
        ("http://hooks.example/", Target("http", "hooks.example", 80)),
        ("HTTPS://Hooks.Example:8443/a?b@c:d#e", Target("https", "hooks.example", 8443)),
        ("https://hooks.example?x=http://127.0.0.1/", Target("https", "hooks.example", 443)),
        ("https://xn--e1afmkfd.example/", Target("https", "xn--e1afmkfd.example", 443)),
        ("https://my_host.example/", Target("https", "my_host.example", 443)),
        ("https://intranet/", Target("https", "intranet", 443)),
        ("https://8.8.8.8/", Target("https", "8.8.8.8", 443)),
        ("https://[2606:4700:4700::1111]/", Target("https", "2606:4700:4700::1111", 443)),
        ("http://[2606:4700:4700:0::1111]:8080/", Target("http", "2606:4700:4700::1111", 8080)),
        ("https://hooks.example:80/", Target("https", "hooks.example", 80)),
        ("http://[2606:4700:4700::1111]:/x:", Target("http", "2606:4700:4700::1111", 80)),
        ("https://1.hooks.example/привет", Target("https", "1.hooks.example", 443)),
    ],
)
def test_a_usual_url_is_understood(url: str, target: Target) -> None:
    assert GUARD.check_url(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example",
        "//hooks.example/",
        "https:hooks.example",
        "https:/hooks.example",
        "https://",
        "https:///path",
        "https://?x",
        "https://:443/",
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "gopher://hooks.example/",
        "javascript://hooks.example/",
        "https://user@hooks.example/",
        "https://user:pass@hooks.example/",
        "https://@hooks.example/",
        "https://hooks.example@127.0.0.1/",
        "https://127.0.0.1\\@hooks.example/",
        "https://hooks.example\\.evil/",
        " https://hooks.example/",
        "https://hooks.example/\r\nX: y",
        "https://hooks.example/a b",
        "https://hooks\t.example/",
        "https://hooks.example\x00/",
        "https://hooks.example\xa0/",
        "https://hooks.example./",
        "https://.example/",
        "https://hooks..example/",
        "https://-hooks.example/",
        "https://hooks-.example/",
        "https://hooks%2eexample/",
        "https://%31%32%37.0.0.1/",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 127 + "example/",
        "https://hooks.example/" + "a" * 2048,
        "https://пример.example/",
        "https://１２７.0.0.1/",
        "https://127。0。0。1/",
        "https://①②⑦.0.0.1/",
        "https://hooks.example／@evil/",
        "http://127.0.0.1/",
        "http://127.0.0.1:8080/",
        "http://127.0.0.1./",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0X7F.1/",
        "http://0x/",
        "http://017700000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://127.0.0.0x1/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://8.8.8.08/",
        "http://3627734734/",
        "http://example.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[fe80::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[2a00::1%25eth0]/",
        "http://[2a00::1%eth0]/",
        "http://[2606:4700:4700::1111/",
        "http://2606:4700:4700::1111/",
        "http://2606:4700:4700::1111]/",
        "http://[2606:4700:4700::1111]x/",
        "http://[127.0.0.1]/",
        "http://[8.8.8.8]/",
        "http://[hooks.example]/",
        "http://[]/",
        "http://[v1.fe80::a]/",
        "http://hooks.example:0/",
        "http://hooks.example:65536/",
        "http://hooks.example:-1/",
        "http://hooks.example:+80/",
        "http://hooks.example:８０/",
        "http://hooks.example:80:80/",
        "http://hooks.example:99999999999999999999/",
        "http://hooks.example:http/",
        *(f"http://hooks.example:{port}/" for port in (21, 22, 23, 25, 110, 143, 465, 587, 2049, 3306, 5432, 6379)),
        *(f"https://hooks.example:{port}/" for port in (1433, 5672, 6000, 6667, 9042, 9200, 11211, 27017)),
    ],
)
def test_a_url_that_can_be_misread_or_leads_inside_is_refused(url: str) -> None:
    with pytest.raises(EgressError, match=r"^refused: ") as caught:
        GUARD.check_url(url)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


_PIECES = st.sampled_from(
    [
        *(
            "http",
            "https",
            "://",
            "//",
            "/",
            "\\",
            "@",
            ":",
            "[",
            "]",
            "::1",
            "::ffff:",
            "127.0.0.1",
            "8.8.8.8",
            "evil",
        ),
        *(
            "hooks.example",
            "%",
            "2e",
            "%25",
            ".",
            "0x7f",
            "1",
            "?",
            "#",
            "８",
            "。",
            "\t",
            " ",
            "x",
            "-",
            "_",
            "80",
            "8080",
        ),
    ]
)


@given(st.sampled_from(["http://", "https://", ""]), st.lists(_PIECES, max_size=7))
def test_a_url_that_passes_is_read_alike_by_others(start: str, pieces: list[str]) -> None:
    text = start + "".join(pieces)
    try:
        target = GUARD.check_url(text)
    except EgressError:
        return
    for host in (urlsplit(text).hostname, URL(text).host):
        assert host is not None
        assert ip_address(host) == ip_address(target.host) if ":" in target.host else host == target.host


def test_other_transports_have_their_own_schemes_and_ports() -> None:
    assert GUARD.check_url("sftp://files.example/in", ("sftp", "ftp")) == Target("sftp", "files.example", 22)
    assert GUARD.check_url("smtp://mail.example:587", ("smtp",)).port == 587
    for url, scheme in (("smtp://mail.example:6379", "smtp"), ("sftp://files.example:25", "sftp")):
        with pytest.raises(EgressError, match="belongs to another protocol"):
            GUARD.check_url(url, (scheme,))
    with pytest.raises(EgressError, match="must begin with sftp://"):
        GUARD.check_url("https://files.example/", ("sftp",))


def test_only_listed_brokers_may_be_named() -> None:
    guard = Egress.read(brokers=["Kafka.example", "nats.example:4222"])
    guard.check_broker("kafka.example", 9092)
    guard.check_broker("NATS.example", 4222)
    for host, port in (("nats.example", 22), ("other.example", 9092), ("", 0)):
        with pytest.raises(EgressError, match="egress_brokers"):
            guard.check_broker(host, port)


def answering(*addresses: str) -> Egress:
    async def lookup(host: str, port: int) -> list[str]:
        return list(addresses)

    return Egress(Egress.read(["127.0.0.0/8"]).allowed, lookup=lookup)


async def test_a_name_gives_its_judged_addresses() -> None:
    found = await answering("8.8.8.8", "2606:4700:4700::1111").resolve("Hooks.example", 443)
    assert found == [IPv4Address("8.8.8.8"), IPv6Address("2606:4700:4700::1111")]


@pytest.mark.parametrize("bad", ["10.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1%2", "169.254.169.254"])
async def test_one_bad_address_refuses_the_name(bad: str) -> None:
    for addresses in ((bad,), ("8.8.8.8", bad), (bad, "8.8.8.8")):
        with pytest.raises(EgressError, match=r"^refused: "):
            await answering(*addresses).resolve("hooks.example", 443)


async def test_the_name_that_led_inside_is_told() -> None:
    with pytest.raises(EgressError) as caught:
        await answering("10.1.2.3").resolve("hooks.example", 443)
    assert str(caught.value) == (
        "refused: hooks.example leads to 10.1.2.3, which is in 10.0.0.0/8 (private); "
        "allow it with --egress-allow 10.1.2.3/32"
    )


async def test_a_literal_address_is_not_looked_up() -> None:
    guard = answering("10.0.0.1")
    assert await guard.resolve("8.8.8.8", 443) == [IPv4Address("8.8.8.8")]
    assert await guard.resolve("2606:4700::1", 443) == [IPv6Address("2606:4700::1")]
    for host in ("10.0.0.1", "::1", "2130706433", "127.1"):
        with pytest.raises(EgressError):
            await GUARD.resolve(host, 443)


async def test_the_machines_own_name_is_refused() -> None:
    with pytest.raises(EgressError, match="loopback"):
        await GUARD.resolve("localhost", 8080)


async def test_a_name_with_too_many_or_no_addresses_is_refused() -> None:
    with pytest.raises(EgressError, match="more than 64 addresses"):
        await answering(*(f"8.8.8.{number}" for number in range(65))).resolve("hooks.example", 443)
    with pytest.raises(socket.gaierror, match="has no address"):
        await answering().resolve("hooks.example", 443)


async def test_a_name_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(module, "LOOKUP_LIMIT", 0.05)
    started = time.monotonic()
    with pytest.raises(socket.gaierror, match="no name server answered") as caught:
        await Egress(lookup=lookup).resolve("hooks.example", 443)
    assert caught.value.errno == socket.EAI_AGAIN
    assert time.monotonic() - started < 1


async def test_a_connection_goes_to_the_judged_address() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        reader, writer = await answering("127.0.0.2", "127.0.0.1").connect("mail.example", port)
        assert await reader.read() == b"220 hello\r\n"
        writer.close()
        with pytest.raises(EgressError):
            await answering("127.0.0.1", "10.0.0.1").connect("mail.example", port)
    with pytest.raises(ConnectionRefusedError):
        await answering("127.0.0.1").connect("mail.example", port)
