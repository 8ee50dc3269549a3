"""A digest as HTML that mail programs show alike: tables, inline styles, nothing loaded from anywhere.

A dark ground is offered where the program says that it wants one; programs that turn colours themselves find only plain
ones to turn. Every table has its heads, the chart a text that says what it shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from aftersend.transports.smtp.digest import Bar, Digest, Row
from aftersend.transports.smtp.wording import NO_BREAK, Wording

_FONT = "-apple-system,BlinkMacSystemFont,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_TEXT, _SOFT, _LINE = "#1c2430", "#5d6675", "#e3e6eb"

_STYLE = """
:root { color-scheme: light dark; supported-color-schemes: light dark; }
body { margin: 0; padding: 0; -webkit-text-size-adjust: 100%; }
@media (max-width: 480px) { .inner { padding: 24px 18px !important; } .ground { padding: 0 !important; }
  .card { border-radius: 0 !important; } .number { font-size: 34px !important; } }
@media (prefers-color-scheme: dark) {
  .ground { background: #101216 !important; } .card { background: #1a1d23 !important; }
  .text { color: #e7eaef !important; } .soft { color: #a0a8b5 !important; }
  .line { border-color: #2e333c !important; } .track { background: #262b33 !important; }
}
""".strip().replace("\n", " ")

_TABLE = 'role="presentation" cellpadding="0" cellspacing="0" border="0" width="100%"'
_DATA = 'cellpadding="0" cellspacing="0" border="0" width="100%" style="border-collapse:collapse;font-size:15px"'


def page(digest: Digest, words: Wording, cid: str) -> str:
    """The whole document; with a content id the chart is the picture of that id, else a table of bars."""
    inner = "\n".join(_inner(digest, words, cid))
    return f"""<!doctype html>
<html lang="{words.tag}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>{escape(digest.subscription)}: {words.counted(digest.count, "event")}</title>
<style>{_STYLE}</style>
</head>
<body class="ground" style="margin:0;padding:0;background:#f3f4f7">
<table {_TABLE}><tr><td class="ground" align="center" style="background:#f3f4f7;padding:28px 12px">
<table {_TABLE} style="max-width:600px"><tr>
<td class="card inner text" style="background:#ffffff;color:{_TEXT};border-radius:10px;padding:34px 36px;\
font-family:{_FONT};font-size:15px;line-height:1.5;text-align:left">
{inner}
</td></tr></table>
</td></tr></table>
</body>
</html>
"""


def _inner(digest: Digest, words: Wording, cid: str) -> Iterator[str]:
    yield f'<p class="soft" style="margin:0;color:{_SOFT};font-size:14px">{escape(digest.subscription)}</p>'
    yield _heading(digest, words)
    if digest.period:
        yield (
            f'<p class="soft" style="margin:6px 0 0;color:{_SOFT};font-size:14px">'
            f"{words['received']}: {escape(digest.period)} ({escape(digest.zone)})</p>"
        )
    if not digest.count:
        yield f'<p style="margin:24px 0 0">{words["nothing"]}</p>'
    if digest.bars:
        yield from _chart(digest, words, cid)
    if digest.rows:
        yield _title(words["by_type"])
        yield _types(digest, words)
    if digest.failures:
        yield _title(words["failures"])
        yield _failures(digest, words)
    if digest.note:
        yield f'<p style="margin:28px 0 0">{escape(digest.note)}</p>'
    yield _footer(digest, words)


def _heading(digest: Digest, words: Wording) -> str:
    number, _, noun = words.counted(digest.count, "event").rpartition(NO_BREAK)
    return (
        '<h1 class="text" style="margin:6px 0 0;font-weight:600;font-size:15px;line-height:1.15;'
        f'color:{_TEXT}"><span class="number" style="font-size:42px;letter-spacing:-0.02em">{number}</span>'
        f'<span class="soft" style="color:{_SOFT};font-weight:400;font-size:20px">{NO_BREAK}{noun}</span></h1>'
    )


def _title(text: str) -> str:
    return f'<h2 class="text" style="margin:34px 0 8px;font-size:16px;font-weight:600;color:{_TEXT}">{text}</h2>'


# The chart


def _chart(digest: Digest, words: Wording, cid: str) -> Iterator[str]:
    yield _title(words["by_hour" if digest.hourly else "by_day"])
    if cid:
        yield (
            f'<img src="cid:{cid}" alt="{escape(_spoken(digest, words))}" width="528" '
            'style="display:block;width:100%;max-width:528px;height:auto;border:0">'
        )
    else:
        yield _bars(digest, words)
    yield _legend(digest)
    if digest.outside:
        text = words["outside"].format(words.counted(digest.outside, "event"))
        yield f'<p class="soft" style="margin:10px 0 0;color:{_SOFT};font-size:13px">{text}</p>'


def _spoken(digest: Digest, words: Wording) -> str:
    text = words["alt_hour" if digest.hourly else "alt_day"]
    highest = digest.highest
    total = sum(bar.total for bar in digest.bars)
    return text.format(words.counted(highest.total, "event"), highest.name, words.counted(total, "event"))


def _legend(digest: Digest) -> str:
    items = " ".join(
        f'<span style="display:inline-block;margin:0 14px 4px 0;white-space:nowrap">{_swatch(row)}{escape(row.label)}'
        "</span>"
        for row in digest.series
    )
    return f'<p class="soft" style="margin:12px 0 0;color:{_SOFT};font-size:13px;line-height:1.6">{items}</p>'


def _swatch(row: Row) -> str:
    return (
        f'<span aria-hidden="true" style="display:inline-block;width:9px;height:9px;border-radius:2px;'
        f"background:{row.colour};margin-right:8px;font-size:1px;line-height:9px;vertical-align:middle;"
        f'position:relative;top:-1px">{NO_BREAK}</span>'
    )


def _bars(digest: Digest, words: Wording) -> str:
    most = digest.highest.total or 1
    rows = "\n".join(_bar(bar, digest, words, most) for bar in digest.bars)
    head = words["hour" if digest.hourly else "day"]
    return f"""<table {_DATA.replace("15px", "13px")}>
<tr>{_column(head, "left")}{_column("", "left")}{_column(words["count"], "right")}</tr>
{rows}
</table>"""


def _bar(bar: Bar, digest: Digest, words: Wording, most: int) -> str:
    cells = "".join(
        f'<td width="{100 * count / most:.2f}%" height="12" style="background:{row.colour};font-size:1px;'
        f'line-height:12px">{NO_BREAK}</td>'
        for row, count in zip(digest.series, bar.counts, strict=True)
        if count
    )
    rest = 100 - 100 * bar.total / most
    if rest > 0:
        cells += f'<td width="{rest:.2f}%" height="12" style="font-size:1px;line-height:12px">{NO_BREAK}</td>'
    return (
        f'<tr><th scope="row" class="soft" style="text-align:left;font-weight:400;color:{_SOFT};padding:1px 12px 1px 0;'
        f'white-space:nowrap;width:1%">{bar.label}</th>'
        f'<td aria-hidden="true"><table {_TABLE} style="table-layout:fixed"><tr>{cells}</tr></table></td>'
        f'<td style="text-align:right;padding:1px 0 1px 12px;white-space:nowrap;width:1%;'
        f'font-variant-numeric:tabular-nums">{words.number(bar.total)}</td></tr>'
    )


# Tables


def _column(text: str, side: str, *, left: int = 0) -> str:
    tag = "th" if text else "td"
    scope = ' scope="col"' if text else ""
    return (
        f'<{tag}{scope} class="soft line" style="text-align:{side};font-weight:400;font-size:13px;color:{_SOFT};'
        f'padding:4px 0 6px {left}px;border-bottom:1px solid {_LINE};white-space:nowrap">{text}</{tag}>'
    )


def _number(text: str, *, strong: bool = False, soft: bool = False) -> str:
    look = f"color:{_SOFT};" if soft else ""
    weight = "font-weight:600;" if strong else ""
    return (
        f'<td class="line{" soft" if soft else ""}" style="text-align:right;vertical-align:top;padding:7px 0 7px 16px;'
        f"border-bottom:1px solid {_LINE};white-space:nowrap;font-variant-numeric:tabular-nums;{weight}{look}"
        f'">{text}</td>'
    )


def _head(text: str, *, strong: bool = False) -> str:
    weight = "600" if strong else "400"
    return (
        f'<th scope="row" class="line" style="text-align:left;font-weight:{weight};padding:7px 0;'
        f'border-bottom:1px solid {_LINE}">{text}</th>'
    )


def _types(digest: Digest, words: Wording) -> str:
    rows = [
        _head(_swatch(row) + escape(row.label))
        + _number(words.number(row.count))
        + _number(words.share(row.count, digest.count), soft=True)
        for row in digest.rows
    ]
    rows.append(_head(words["total"], strong=True) + _number(words.number(digest.count), strong=True) + _number(""))
    heads = (
        _column(words["type"], "left")
        + _column(words["count"], "right", left=16)
        + _column(words["share"], "right", left=16)
    )
    return _data_table(heads, rows)


def _failures(digest: Digest, words: Wording) -> str:
    rows = [
        _head(f'<span style="word-break:break-word">{escape(text)}</span>') + _number(words.number(count))
        for text, count in digest.failures
    ]
    return _data_table(_column(words["reply"], "left") + _column(words["count"], "right", left=16), rows)


def _data_table(heads: str, rows: list[str]) -> str:
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table {_DATA}>\n<tr>{heads}</tr>\n{body}\n</table>"


def _footer(digest: Digest, words: Wording) -> str:
    numbers = words["numbers"].format(*map(words.number, digest.numbers))
    return (
        f'<p class="soft" style="margin:34px 0 0;color:{_SOFT};font-size:13px;line-height:1.5">'
        f"{words['footer'].format(escape(digest.subscription))}<br>{numbers}.</p>"
    )
