"""`aftersend subscriptions`: who gets which events, and how they do."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote

import msgspec
from cyclopts import App, Parameter

from aftersend.cli.client import Client, connected
from aftersend.cli.output import hint, print_fields, print_json, print_table, say
from aftersend.cli.parameters import HERE, PLAIN, AsJson, Target, read_values, split_pairs
from aftersend.cli.pulling import pull
from aftersend.cli.records import readable, show_list
from aftersend.cli.standings import PULLED, in_short, laid_out, manifest_row, require_told, say_next
from aftersend.core.errors import AftersendError, UsageError
from aftersend.core.rotation import Rotation
from aftersend.core.secret import MASK

subscriptions = App(
    name="subscriptions", default_parameter=PLAIN, help="Who gets which events, in which dialect, and how they do."
)

_PATH = "/v1/subscriptions"


def _many(help_: str) -> Parameter:
    return Parameter(consume_multiple=True, show_default=False, help=help_)


def _one(help_: str) -> Parameter:
    return Parameter(show_default=False, help=help_)


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Fields:
    """What a subscription may say; what is not given stays as it is."""

    url: Annotated[str | None, _one("Where the events go: https://…, sftp://…, smtp://…, kafka://… and so on.")] = None
    dialect: Annotated[str | None, _one("What the receiver understands, as `halon`; without it canonical JSON.")] = None
    types: Annotated[tuple[str, ...] | None, _many("Only these types; `*` stands for anything, as `email.*`.")] = None
    channels: Annotated[tuple[str, ...] | None, _many("Only these channels.")] = None
    sources: Annotated[tuple[str, ...] | None, _many("Only events of these sources.")] = None
    campaigns: Annotated[tuple[str, ...] | None, _many("Only events of these campaigns.")] = None
    actors: Annotated[tuple[str, ...] | None, _many("Only what these did: human, proxy, machine, unknown.")] = None
    test: Annotated[Literal["only", "none", "both"] | None, _one("Test sends: only them, none of them, or both.")] = (
        None
    )
    max_events: Annotated[int | None, _one("Most events in one request.")] = None
    max_bytes: Annotated[int | None, _one("Most bytes in one request.")] = None
    max_wait: Annotated[float | None, _one("Seconds that an unfilled batch waits for more.")] = None
    timeout: Annotated[float | None, _one("Seconds for the whole answer.")] = None
    retry: Annotated[tuple[float, ...] | None, _many("Seconds between tries; the last one repeats.")] = None
    disable_after: Annotated[float | None, _one("Seconds of nothing but failure until it is disabled.")] = None
    ordering: Annotated[Literal["log", "strict", "none"] | None, _one("What a refused event does to those behind.")] = (
        None
    )
    concurrency: Annotated[int | None, _one("Requests at once, with `--ordering none`.")] = None
    acknowledge_status: Annotated[str | None, _one("The status that means taken: `2xx`, or one as `200`.")] = None
    acknowledge_body: Annotated[str | None, _one("A pattern that the answer's body must hold.")] = None
    header: Annotated[tuple[str, ...] | None, _one("NAME=VALUE: a header sent along; may stand several times.")] = None
    secret: Annotated[
        tuple[str, ...] | None,
        _one(
            "Signing secret (whsec_… or whsk_…); several while they change, the newest first; without it one is made."
        ),
    ] = None
    verdict: Annotated[
        Literal["at_once", "settled"] | None, _one("Who did it: as judged at once, or as it stands 15 minutes later.")
    ] = None
    corrections: Annotated[
        bool | None,
        Parameter(negative="--no-corrections", show_default=False, help="Tell later verdicts too, as events."),
    ] = None
    option: Annotated[tuple[str, ...] | None, _one("NAME=VALUE: an option of the dialect.")] = None
    transport: Annotated[
        str | None, _one("How they leave; without it what the URL is for. See `aftersend transports`.")
    ] = None
    file: Annotated[
        tuple[str, ...] | None,
        _one(
            "NAME=VALUE: how events are put into files: every, zone, max_events, max_bytes, name, compression, format, "
            "empty. May stand several times."
        ),
    ] = None
    setting: Annotated[
        tuple[str, ...] | None,
        _one(
            "NAME=VALUE: an option of the transport; `NAME=@FILE` reads it from a file, and with `set` an empty "
            "`NAME=` takes it away. May stand several times."
        ),
    ] = None


NONE_GIVEN = Fields()

Probe = Annotated[
    bool | None,
    Parameter(
        negative="--no-probe",
        show_default=False,
        help="Save it only if its receiver is reached; without either that is so for all but HTTP receivers.",
    ),
]

_BATCH = ("max_events", "max_bytes", "max_wait")
_RENAMED = {"header": "headers", "secret": "signing_secrets", "option": "options", "setting": "settings"}


def record_of(given: Fields) -> dict[str, Any]:
    """The fields as the API names them; only what was given."""
    record: dict[str, Any] = {}
    for field in fields(given):
        value = getattr(given, field.name)
        if value is None or field.name in _BATCH:
            continue
        if field.name in ("header", "option"):
            value = split_pairs(value, f"--{field.name}")
        elif field.name == "file":
            value = _file_rule(split_pairs(value, "--file"))
        elif field.name == "setting":
            value = read_values(split_pairs(value, "--setting"), "--setting")
        elif field.name == "test":
            value = {"only": True, "none": False, "both": None}[value]
        elif field.name == "types" and not value:
            raise UsageError("--types: name at least one; '*' stands for all")
        record[_RENAMED.get(field.name, field.name)] = list(value) if isinstance(value, tuple) else value
    batch = {name: getattr(given, name) for name in _BATCH if getattr(given, name) is not None}
    return {**record, "batch": batch} if batch else record


def _file_rule(pairs: dict[str, str]) -> dict[str, Any]:
    """What `--file` says, as the API wants it. Raises UsageError."""
    types = {field.name: field.type for field in msgspec.structs.fields(Rotation)}
    unknown = sorted(pairs.keys() - types.keys())
    if unknown:
        raise UsageError(f"--file: there is no {unknown[0]!r}; there are: {', '.join(types)}")
    return {name: _file_value(name, text, types[name]) for name, text in pairs.items()}


def _file_value(name: str, text: str, type_: Any) -> Any:
    try:
        return msgspec.convert(text, type_, strict=False)
    except msgspec.ValidationError as error:
        words = [word for word in get_args(type_) if isinstance(word, str)]
        more = f"; there are: {', '.join(words)}" if words else ""
        raise UsageError(f"--file {name}={text}: {error}{more}") from None


def _path(name: str, rest: str = "") -> str:
    return f"{_PATH}/{quote(name, '')}{rest}"


# Records


@subscriptions.command
def add(
    name: str,
    /,
    *,
    given: Fields = NONE_GIVEN,
    start: Annotated[str, Parameter(help="Where it begins: now, beginning, or an RFC 3339 time.")] = "now",
    paused: Annotated[bool, Parameter(show_default=False, help="Do not begin yet.")] = False,
    probe: Probe = None,
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Add a subscription; a secret that signs its requests is shown this once."""
    if not given.url and not given.transport:
        raise UsageError("--url is missing: where shall the events go? (Some ways need none; then name --transport.)")
    record = {"name": name, **record_of(given), "start": start, **({"state": "paused"} if paused else {})}
    with connected(target) as client:
        made = client.call("POST", _PATH, record, **_asked(probe))
        running = client.running
    if json:
        print_json(made)
        return
    where = f" at {made['url']}" if made["url"] else ""
    say(f"{name} ({made['id']}) is told {', '.join(made['types'])} in {made['dialect']} by {made['transport']}{where}.")
    _say_probe(made)
    say_next(made)
    if not given.secret:
        _say_secret(made)
    if not running:
        hint("Delivery begins with `aftersend serve`.")


def _asked(probe: bool | None) -> dict[str, str]:
    return {} if probe is None else {"probe": "require" if probe else "skip"}


def _say_probe(made: dict[str, Any]) -> None:
    if made.get("probe", {}).get("reached") and made["transport"] not in PULLED:
        say("The receiver was reached.")


def _say_secret(made: dict[str, Any]) -> None:
    """A secret that was made just now; else it is masked, or there is none."""
    found = [secret for secret in made["signing_secrets"] if secret != MASK]
    if found:
        say(f"Its requests are signed with this secret; it is not shown again: {found[0]}")


@subscriptions.command
def probe(name: str, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """Look whether the receiver can be reached and would take events; it is told none."""
    with connected(target) as client:
        found = client.call("POST", _path(name, "/probe"))
    if json:
        print_json(found)
    elif found["reached"]:
        say(f"{name}: {found['detail'] or 'reached'}.")
    if not found["reached"]:
        raise AftersendError(f"{name}: {found['detail']}")


@subscriptions.command(name="list")
def list_all(*, target: Target = HERE, json: AsJson = False) -> None:
    """All subscriptions, and how each does."""
    with connected(target) as client:
        found = client.call("GET", _PATH)
    rows = found if json else [in_short(item) for item in found]
    empty = "No subscriptions yet. Add one: aftersend subscriptions add NAME --url https://…"
    show_list(rows, ("name", "state", "behind", "dialect", "types", "to"), json, empty)
    for row in rows if not json else ():
        if row["reason"]:
            say(f"{row['name']}: {row['reason']}")


@subscriptions.command
def show(name: str, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """One subscription, with how it does."""
    with connected(target) as client:
        _show(client.call("GET", _path(name)), json)


def _show(record: dict[str, Any], json: bool) -> None:
    if json:
        print_json(record)
        return
    print_fields({key: readable(key, value) for key, value in laid_out(record).items()})


@subscriptions.command(name="set")
def change(
    name: str, /, *, given: Fields = NONE_GIVEN, probe: Probe = None, target: Target = HERE, json: AsJson = False
) -> None:
    """Change a subscription; another filter or dialect begins a new epoch of its numbers."""
    record = record_of(given)
    if not record:
        raise UsageError("nothing to change; `aftersend subscriptions set --help` shows what there is")
    with connected(target) as client:
        for part in record.keys() & {"batch", "file"}:
            record[part] = {**client.call("GET", _path(name))[part], **record[part]}
        if "settings" in record:
            record["settings"] = {key: value or None for key, value in record["settings"].items()}
        changed = client.call("PATCH", _path(name), record, **_asked(probe))
    if json:
        print_json(changed)
        return
    say(f"{name} is changed.")
    if changed["transport"] in PULLED and "transport" in record:
        say_next(changed)
    if not given.secret:
        _say_secret(changed)


def _set_state(name: str, state: str, target: Target, done: str) -> None:
    with connected(target) as client:
        client.call("PATCH", _path(name), {"state": state})
    say(done)


@subscriptions.command
def pause(name: str, /, *, target: Target = HERE) -> None:
    """Stop delivering; its place in the log is kept."""
    _set_state(name, "paused", target, f"{name} is paused and keeps its place.")


@subscriptions.command
def resume(name: str, /, *, target: Target = HERE) -> None:
    """Go on where it was paused."""
    _set_state(name, "active", target, f"{name} goes on where it stood.")


@subscriptions.command
def enable(name: str, /, *, target: Target = HERE) -> None:
    """Go on after it was disabled for failing, or overtaken by the log's size limit."""
    _set_state(name, "active", target, f"{name} is enabled and goes on where it stood.")


@subscriptions.command
def retry(
    name: str,
    /,
    *,
    aside: Annotated[bool, Parameter(show_default=False, help="Try the events set aside again instead.")] = False,
    target: Target = HERE,
) -> None:
    """Do not wait for the next try."""
    with connected(target) as client:
        _require_running(client, "a try")
        require_told(client.call("GET", _path(name)), aside=aside)
        said = client.call("POST", _path(name, "/aside/retry" if aside else "/retry"))
    if aside:
        count = said["again"]
        say(f"{count} event{'s' * (count != 1)} set aside: tried again now." if count else "Nothing is set aside.")
    else:
        say(f"{name} tries again now.")


def _require_running(client: Client, what: str) -> None:
    if not client.running:
        raise AftersendError(f"{what} needs a running instance; start `aftersend serve` first")


@subscriptions.command
def remove(name: str, /, *, target: Target = HERE) -> None:
    """End a subscription for good: its place in the log and what was set aside go with it."""
    with connected(target) as client:
        client.call("DELETE", _path(name))
    say(f"{name} is removed.")


# What was told


@subscriptions.command
def replay(
    name: str,
    /,
    *,
    since: Annotated[str, _one("Events received from here on (RFC 3339).")],
    until: Annotated[str, _one("Events received before here; without it all up to now.")] = "",
    types: Annotated[tuple[str, ...], _many("Only these types.")] = ("*",),
    rate: Annotated[float, _one("Events a second at most; 0: as fast as they are taken.")] = 0.0,
    dry_run: Annotated[bool, _one("Only count.")] = False,
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Tell events again, marked as replayed."""
    order = {"since": since, "until": until, "types": list(types), "rate": rate, "dry_run": dry_run}
    with connected(target) as client:
        if not dry_run:
            _require_running(client, "a replay")
        said = client.call("POST", _path(name, "/replay"), order)
    if json:
        print_json(said)
    elif dry_run:
        say(f"{said['total']} events would be told to {name} again.")
    else:
        say(f"{said['total']} events are told to {name} again; `aftersend subscriptions replays {name}` shows how far.")


@subscriptions.command
def replays(name: str, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """Replays since the instance was started."""
    with connected(target) as client:
        found = client.call("GET", _path(name, "/replay"))
    show_list(found, ("id", "state", "done", "total", "since", "until", "detail"), json, "No replays since the start.")


@subscriptions.command
def aside(name: str, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """Events that the receiver refused singly, with its last word."""
    with connected(target) as client:
        found = client.call("GET", _path(name, "/aside"))
    rows = found if json else [{**item, "id": item["event"]["id"], "type": item["event"]["type"]} for item in found]
    columns = ("id", "type", "state", "attempts", "next_at", "detail")
    show_list(rows, columns, json, "Nothing is set aside.")


@subscriptions.command
def manifest(
    name: str,
    /,
    *,
    day: Annotated[str, _one("Only this day, YYYY-MM-DD (UTC).")] = "",
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """What was told each day: numbers, counts and a sum of ids, so that a receiver can prove it has everything."""
    _check_day(day)
    with connected(target) as client:
        found = client.call("GET", _path(name, "/manifest"), day=day)
    if json or not found:
        show_list(found, (), json, f"Nothing was told on {day}." if day else "Nothing was told yet.")
        return
    print_table(("day", "epoch", "numbers", "events", "ids_sum"), [manifest_row(item) for item in found])
    hint("--json shows the counts by type too.")


def _check_day(day: str) -> None:
    try:
        date.fromisoformat(day or "2026-01-31")
    except ValueError:
        raise UsageError(f"--day takes a day such as 2026-01-31, not {day!r}") from None


subscriptions.command(pull)
