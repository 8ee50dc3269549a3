"""`aftersend sources | tenants | domains | sites | keys | quarantine`: what is registered, or could not be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter

from aftersend.cli import DONE, PARTLY
from aftersend.cli.client import connected
from aftersend.cli.output import print_fields, print_json, print_table, say
from aftersend.cli.parameters import HERE, PLAIN, AsJson, Target, read_values, split_pairs
from aftersend.config import load
from aftersend.core.errors import UsageError
from aftersend.core.timestamps import format_time

sources = App(
    name="sources", default_parameter=PLAIN, help="Ways in for vendors: each is an address that a vendor posts to."
)
tenants = App(
    name="tenants", default_parameter=PLAIN, help="Customers of this instance; nothing is shared between two."
)
domains = App(name="domains", default_parameter=PLAIN, help="Hosts that serve only tracking links.")
sites = App(
    name="sites", default_parameter=PLAIN, help="Web sites whose pages tell what happens on them (aftersend.js)."
)
keys = App(name="keys", default_parameter=PLAIN, help="Credentials for the API.")
quarantine = App(name="quarantine", default_parameter=PLAIN, help="What could not be read, kept with the reason.")


def show_list(found: list[dict[str, Any]], columns: Sequence[str], as_json: bool, when_empty: str) -> None:
    """Records as JSON or as a table; without any, what to do."""
    if as_json:
        print_json(found)
    elif found:
        print_table(columns, [[readable(name, item.get(name)) for name in columns] for item in found])
    else:
        say(when_empty)


def readable(name: str, value: Any) -> Any:
    """A field as people read it: times as text."""
    if name.endswith("_at") and isinstance(value, int):
        return format_time(value - value % 1_000_000_000) if value else None
    return value


def show_record(record: dict[str, Any], as_json: bool) -> None:
    """One record, as JSON or field by field."""
    if as_json:
        print_json(record)
    else:
        print_fields({name: readable(name, value) for name, value in record.items()})


# Sources


@sources.command(name="add")
def add_source(
    name: str,
    /,
    *,
    dialect: Annotated[str, Parameter(help="What the vendor speaks, as `halon` or `pure360/http`.")],
    origin: Annotated[
        str,
        Parameter(show_default=False, help="The same for all sources of one vendor account; without it the dialect."),
    ] = "",
    secret: Annotated[
        str, Parameter(show_default=False, help="The secret that a request must carry; without it one is made.")
    ] = "",
    open_: Annotated[bool, Parameter(name="--open", show_default=False, help="Ask for no secret at all.")] = False,
    secret_header: Annotated[str, Parameter(show_default=False, help="The header that carries the secret.")] = "",
    signing_secret: Annotated[
        str, Parameter(show_default=False, help="Standard Webhooks secret (whsec_…) that bodies are signed with.")
    ] = "",
    app_key: Annotated[
        str,
        Parameter(
            show_default=False,
            help="What tokens (JWT) of its apps are signed with: a secret, or @FILE with it or a PEM.",
        ),
    ] = "",
    option: Annotated[
        tuple[str, ...], Parameter(show_default=False, help="NAME=VALUE: an option of the dialect.")
    ] = (),
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Add a source; its address with the secret is shown this once."""
    if open_ and secret:
        raise UsageError("--open asks for no secret, --secret for one; take one of them")
    fields: dict[str, Any] = {"name": name, "dialect": dialect, "secret": secret or not open_}
    optional = {"origin": origin, "secret_header": secret_header, "signing_secret": signing_secret}
    optional |= read_values({"app_key": app_key}, "--app-key")
    fields |= {key: value for key, value in optional.items() if value}
    if option:
        fields["options"] = split_pairs(option, "--option")
    with connected(target) as client:
        made = client.call("POST", "/v1/sources", fields)
    if json:
        print_json(made)
        return
    say(f"The source {name} takes {dialect} at this address; a secret in it is not shown again:")
    say(_public_url(target) + made["path"])


def _public_url(target: Target) -> str:
    """How vendors reach the instance; nothing where nobody said."""
    return (target.url or load(target.data, os.environ, {}).public_url).rstrip("/")


@sources.command(name="list")
def list_sources(*, target: Target = HERE, json: AsJson = False) -> None:
    """All sources."""
    with connected(target) as client:
        found = client.call("GET", "/v1/sources")
    empty = "No sources yet. Add one: aftersend sources add NAME --dialect DIALECT"
    show_list(found, ("name", "tenant", "dialect", "origin", "enabled", "created_at"), json, empty)


@sources.command(name="show")
def show_source(name: str, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """One source."""
    with connected(target) as client:
        show_record(client.call("GET", f"/v1/sources/{quote(name, '')}"), json)


@sources.command(name="remove")
def remove_source(name: str, /, *, target: Target = HERE) -> None:
    """Close a source; its events stay."""
    _remove("/v1/sources", "source", name, target)


def _remove(path: str, kind: str, name: str, target: Target) -> None:
    with connected(target) as client:
        client.call("DELETE", f"{path}/{quote(name, '')}")
    say(f"The {kind} {name} is removed.")


# Tenants


@tenants.command(name="add")
def add_tenant(name: str, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """Add a tenant."""
    with connected(target) as client:
        made = client.call("POST", "/v1/tenants", {"name": name})
    if json:
        print_json(made)
    else:
        say(f"The tenant {name} is there. Give it a key: aftersend keys add --tenant {name} --scope ingest")


@tenants.command(name="list")
def list_tenants(*, target: Target = HERE, json: AsJson = False) -> None:
    """All tenants; `default` is always there."""
    with connected(target) as client:
        found = client.call("GET", "/v1/tenants")
    show_list(found, ("name", "created_at"), json, "No tenants.")


@tenants.command(name="remove")
def remove_tenant(name: str, /, *, target: Target = HERE) -> None:
    """Forget a tenant that has neither keys nor sources nor subscriptions."""
    _remove("/v1/tenants", "tenant", name, target)


# Domains


@domains.command(name="add")
def add_domain(
    name: str,
    /,
    *,
    offer: Annotated[
        tuple[str, ...],
        Parameter(name="--list", show_default=False, help="ID=NAME: a list that its preference page offers to end."),
    ] = (),
    channel: Annotated[
        tuple[str, ...],
        Parameter(consume_multiple=True, show_default=False, help="Channels that the page offers to end; e-mail."),
    ] = ("email",),
    halon_key: Annotated[
        tuple[str, ...],
        Parameter(show_default=False, help="ID=KEY: a key of Halon's links behind which the host stands (1 to 254)."),
    ] = (),
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Have a host serve only tracking links."""
    fields: dict[str, Any] = {"name": name, "lists": split_pairs(offer, "--list"), "channels": list(channel)}
    fields["halon_keys"] = read_values(split_pairs(halon_key, "--halon-key"), "--halon-key")
    with connected(target) as client:
        made = client.call("POST", "/v1/domains", fields)
    if json:
        print_json(made)
    else:
        say(f"Requests to {made['name']} are answered with tracking links only.")


@domains.command(name="list")
def list_domains(*, target: Target = HERE, json: AsJson = False) -> None:
    """All tracking domains."""
    with connected(target) as client:
        found = client.call("GET", "/v1/domains")
    empty = "No tracking domains yet. Add one: aftersend domains add click.example.com"
    show_list(found, ("name", "tenant", "created_at"), json, empty)


@domains.command(name="remove")
def remove_domain(name: str, /, *, target: Target = HERE) -> None:
    """Let a host go."""
    _remove("/v1/domains", "domain", name, target)


# Sites


@sites.command(name="add")
def add_site(
    name: str,
    /,
    *,
    origin: Annotated[
        tuple[str, ...],
        Parameter(consume_multiple=True, help="Where its pages are: https://shop.example, or https://*.shop.example."),
    ],
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Add a web site; what is printed goes into its pages."""
    with connected(target) as client:
        made = client.call("POST", "/v1/sites", {"name": name, "origins": list(origin)})
    if json:
        print_json(made)
        return
    say(f"The site {name} is heard from {', '.join(made['origins'])}. Put this into its pages:")
    say(f'<script defer src="{_public_url(target)}/aftersend.js" data-site="{made["key"]}"></script>')


@sites.command(name="list")
def list_sites(*, target: Target = HERE, json: AsJson = False) -> None:
    """All web sites."""
    with connected(target) as client:
        found = client.call("GET", "/v1/sites")
    empty = "No sites yet. Add one: aftersend sites add shop --origin https://shop.example"
    show_list(found, ("name", "tenant", "key", "origins", "enabled", "created_at"), json, empty)


@sites.command(name="remove")
def remove_site(name: str, /, *, target: Target = HERE) -> None:
    """Hear a web site no more; its events stay."""
    _remove("/v1/sites", "site", name, target)


# Keys


@keys.command(name="add")
def add_key(
    *,
    name: Annotated[str, Parameter(show_default=False, help="What it is for, in your words.")] = "",
    scope: Annotated[
        tuple[str, ...],
        Parameter(consume_multiple=True, help="app, ingest, read, deliver or admin; several may be named."),
    ] = ("ingest",),
    source: Annotated[
        str, Parameter(show_default=False, help="The source that events handed in with it come from.")
    ] = "",
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Make a key; it is shown this once."""
    fields: dict[str, Any] = {"name": name, "scopes": [item for text in scope for item in text.split(",")]}
    fields |= {"source": source} if source else {}
    with connected(target) as client:
        made = client.call("POST", "/v1/keys", fields)
    if json:
        print_json(made)
        return
    say(f"The key {made['id']} may {', '.join(made['scopes'])}; it is not shown again:")
    say(made["key"])


@keys.command(name="list")
def list_keys(*, target: Target = HERE, json: AsJson = False) -> None:
    """All keys, without anything to guess them by."""
    with connected(target) as client:
        found = client.call("GET", "/v1/keys")
    empty = "No keys. Make one: aftersend keys add --scope admin"
    show_list(found, ("id", "name", "tenant", "scopes", "source", "created_at", "revoked_at"), json, empty)


@keys.command(name="revoke")
def revoke_key(id: str, /, *, target: Target = HERE) -> None:  # noqa: A002
    """Make a key worthless; it stays in the list."""
    with connected(target) as client:
        client.call("DELETE", f"/v1/keys/{quote(id, '')}")
    say(f"The key {id} is revoked.")


# Quarantine

_PAGE = 500


@quarantine.command(name="list")
def list_quarantined(
    *,
    after: Annotated[int, Parameter(help="Only numbers above this one.")] = 0,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), help="At most so many.")] = 100,
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """What could not be read, the oldest first."""
    with connected(target) as client:
        found = client.call("GET", "/v1/quarantine", after=max(after, 0), limit=max(1, min(limit, _PAGE)))
    columns = ("number", "source", "dialect", "reason", "detail", "received_at")
    show_list(found, columns, json, "Nothing is in quarantine: everything that came in could be read.")


@quarantine.command(name="show")
def show_quarantined(number: int, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """One entry, with its bytes."""
    with connected(target) as client:
        found = client.call("GET", "/v1/quarantine", after=max(0, number - 1), limit=1)
    if not found or found[0]["number"] != number:
        raise UsageError(f"there is no entry {number} in quarantine; `aftersend quarantine list` shows them")
    show_record(found[0], json)


@quarantine.command(name="replay")
def replay_quarantined(*, target: Target = HERE, json: AsJson = False) -> int:
    """Read everything in quarantine again, after a fix; what is read now leaves it."""
    with connected(target) as client:
        said = client.call("POST", "/v1/quarantine/replay")
    if json:
        print_json(said)
    else:
        say(f"{said['read']} could be read now, {said['still_unreadable']} still not.")
    return DONE if not said["still_unreadable"] else PARTLY


@quarantine.command(name="discard")
def discard_quarantined(*numbers: int, target: Target = HERE) -> int:
    """Forget entries by number."""
    if not numbers:
        raise UsageError("say which: aftersend quarantine discard NUMBER…")
    with connected(target) as client:
        client.call("POST", "/v1/quarantine/discard", {"numbers": list(numbers)})
    say(f"{len(numbers)} entries are forgotten.")
    return DONE
