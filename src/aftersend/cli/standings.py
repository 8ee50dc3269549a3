"""How a subscription is shown to people: in a row, at full length, and with what comes next."""

from __future__ import annotations

from typing import Any

from aftersend.cli.output import say
from aftersend.core.errors import AftersendError

PULLED = {
    "rest_pull": "Its consumer comes for them; see what waits: aftersend subscriptions pull {name}",
    "soap_pull": "Its client logs in as {user} at …/paint.pure360.com/ctrlPaintLiteral.wsdl, or ctrlPaint.wsdl.",
    "messagegears_rest": "Its client asks …/3.1/WebService with the AccountId {account_id}.",
}
"""Who is told nothing, but asks: what happens next."""

_PLACES = {
    "amqp": ("queue", "exchange"),
    "nats": ("subject",),
    "smtp": ("recipients",),
    "soap_pull": ("user",),
    "messagegears_rest": ("account_id",),
}
"""Settings that say where events go, where the URL is a server's or there is none."""

_NESTED = {
    "settings": "setting",
    "options": "option",
    "headers": "header",
    "batch": "batch",
    "file": "file",
    "standing": "standing",
}
"""Fields that hold others, each of which gets a line."""


def say_next(made: dict[str, Any]) -> None:
    """What happens next with a subscription that tells nothing at once."""
    if made["transport"] in PULLED:
        say(PULLED[made["transport"]].format(name=made["name"], **made["settings"]))
    elif _is_in_files(made):
        every = made["file"]["every"]
        hurry = "" if every == "minute" else "; --file every=minute shows one soon"
        say(f"A file of events goes out when its {every} is over{hurry}.")


def require_told(record: dict[str, Any], *, aside: bool) -> None:
    """Raises AftersendError for a subscription that tries nothing now; events set aside are offered to pullers too."""
    name, state = record["name"], record["state"]
    if state in ("disabled", "paused"):
        verb = "enable" if state == "disabled" else "resume"
        raise AftersendError(f"{name} is {state}; `aftersend subscriptions {verb} {name}` goes on")
    if record["transport"] in PULLED and not aside:
        raise AftersendError(f"{name} tries nothing: it is pulled, when its consumer wants to")


def _is_in_files(record: dict[str, Any]) -> bool:
    is_digest = record["transport"] == "smtp" and record["settings"].get("mode", "digest") == "digest"
    return is_digest or record["transport"] in ("folder", "ftp", "sftp")


def in_short(item: dict[str, Any]) -> dict[str, Any]:
    """A subscription in a row: one that fails says so, and what it heard."""
    standing, failing = item["standing"], _is_failing(item)
    return {
        **item,
        "state": "failing" if failing else item["state"],
        "behind": standing.get("behind"),
        "to": _place(item),
        "reason": item["reason"] or (standing.get("detail") if failing else ""),
    }


def _is_failing(item: dict[str, Any]) -> bool:
    """Whether what an active subscription last told was not taken."""
    return item["state"] in ("active", "gap") and bool(item["standing"].get("failing_since"))


def _place(item: dict[str, Any]) -> str:
    names = _PLACES.get(item["transport"], ())
    found = next((item["settings"][name] for name in names if item["settings"].get(name)), "")
    if isinstance(found, list):
        found = found[0] + (f" +{len(found) - 1}" if len(found) > 1 else "")
    return " ".join(filter(None, (item["url"] or item["transport"], found)))


def laid_out(record: dict[str, Any]) -> dict[str, Any]:
    """A subscription as lines: what it is, each setting, and how it does; nothing that says nothing."""
    shown = {**record, "state": "failing" if _is_failing(record) else record["state"]}
    shown["failing_since"] = record["failing_since"] or None
    if not _is_in_files(record):
        del shown["file"]
    flat: dict[str, Any] = {}
    for key, value in shown.items():
        if key in _NESTED:
            flat |= {f"{_NESTED[key]} {name}": _plain(one) for name, one in value.items() if name != "words"}
        else:
            flat[key] = _plain(value)
    words = {f"position {word}": cursor["position"] for word, cursor in record["standing"].get("words", {}).items()}
    return {key: value for key, value in {**flat, **words}.items() if value not in (None, "", [], {})}


def _plain(value: Any) -> Any:
    """A value on one line: certificates and keys by their first line, numbers without zeros behind the point."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and "\n" in value:
        lines = value.splitlines()
        return f"{lines[0]} … ({len(lines)} lines)"
    return value


def manifest_row(item: dict[str, Any]) -> tuple[Any, ...]:
    """A day of a manifest, without its counts by type."""
    numbers = f"{item['first_sequence']}-{item['last_sequence']}"
    return item["day"], item["epoch"], numbers, sum(item["types"].values()), item["ids_sum"]
