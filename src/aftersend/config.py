"""The settings of an instance: from the command line, else `AFTERSEND_…`, else `aftersend.toml`, else the default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from aftersend.core.errors import ConfigurationError
from aftersend.core.relay import RELAY_HELP, RelaySettings
from aftersend.core.secret import Secret, read_secret

FILE_NAME = "aftersend.toml"
ENVIRONMENT_PREFIX = "AFTERSEND_"


class Setting(Struct, frozen=True):
    """One setting, for documentation."""

    name: str
    default: Any
    help: str

    @property
    def environment(self) -> str:
        """Its name in the environment."""
        return ENVIRONMENT_PREFIX + self.name.upper()


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings; `help_of` tells each in a sentence."""

    listen: str = "127.0.0.1:8080"
    admin_listen: str = ""
    public_url: str = ""
    egress_allow: tuple[str, ...] = ()
    egress_allow_metadata: tuple[str, ...] = ()
    egress_brokers: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    keyring_file: str = ""
    retention_days: float = 90.0
    max_log_bytes: int = 0
    max_file_bytes: int = 1 << 30
    trusted_proxies: tuple[str, ...] = ()
    reading_time: bool = False
    settled_verdicts: bool = False
    bots_file: str = ""
    networks_file: str = ""
    spool_file: str = ""
    spool_bytes: int = 64_000_000
    log_level: str = "warning"
    relay: RelaySettings = RelaySettings()


_HELP = {
    "listen": "Host and port that events and API calls come in by.",
    "admin_listen": "Host and port for the API; `listen` then takes events in alone. Empty: the API shares `listen`.",
    "public_url": "How others reach this instance, e.g. https://events.example.com; printed with new sources.",
    "egress_allow": "Networks (CIDR) that deliveries may reach besides public ones, e.g. 10.1.0.0/16.",
    "egress_allow_metadata": "The same for link-local and metadata addresses, which `egress_allow` never opens.",
    "egress_brokers": "Hosts that queue libraries may connect to.",
    "folders": "Folders of this machine that files may be delivered into, and below, e.g. /srv/events.",
    "keyring_file": "File with the instance's keys; empty: keyring.json in the data folder.",
    "retention_days": "Days after which a log file that every subscription has passed is dropped; 0: never.",
    "max_log_bytes": "Bytes of log above which the oldest file goes, even if it is still needed; 0: no limit.",
    "max_file_bytes": "Bytes after which the log goes on in a new file.",
    "trusted_proxies": "Networks (CIDR) of proxies in front, whose X-Forwarded-For is believed.",
    "reading_time": "Measure how long messages stay open, by pictures that come slowly; ask people first.",
    "settled_verdicts": "Judge hits again when others are seen beside them, also where no subscription asks for it.",
    "bots_file": "TOML file of agents and networks whose hits are ignored, stripped or blocked (docs/verdict.md).",
    "networks_file": "TOML file of the networks that verdicts look at: `mail_gateways = [CIDR, …]` (docs/verdict.md).",
    "spool_file": "File where hits wait while the log is slow or full; empty: `spool` in the data folder.",
    "spool_bytes": "Bytes of that file, taken at the start.",
    "log_level": "debug, info, warning or error: what the process writes to its standard error.",
}


def settings() -> Iterator[Setting]:
    """Every setting with its default and help."""
    for item in msgspec.structs.fields(Config):
        if item.name == "relay":
            continue
        yield Setting(item.name, item.default, _HELP[item.name])


def relay_settings() -> Iterator[Setting]:
    """The settings of the `[relay]` table, named as in the environment."""
    for item in msgspec.structs.fields(RelaySettings):
        default = item.default.reveal() if isinstance(item.default, Secret) else item.default
        yield Setting(f"relay_{item.name}", default, RELAY_HELP[item.name])


def load(folder: Path, environment: Mapping[str, str], given: Mapping[str, Any]) -> Config:
    """The settings of the instance in a folder. Raises ConfigurationError, naming the setting and where it stands."""
    values = _read_file(folder / FILE_NAME)
    for setting in settings():
        text = environment.get(setting.environment)
        if text is not None:
            values[setting.name] = text.split(",") if isinstance(setting.default, tuple) else text
    relay = values.setdefault("relay", {})
    for setting in relay_settings() if isinstance(relay, dict) else ():
        text = environment.get(setting.environment)
        if text is not None:
            many = isinstance(setting.default, tuple)
            relay[setting.name.removeprefix("relay_")] = text.split(",") if many else text
    values |= {name: value for name, value in given.items() if value not in (None, (), [])}
    try:
        return msgspec.convert(values, Config, strict=False, dec_hook=read_secret)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"settings: {error}; see docs/configuration.md") from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = msgspec.toml.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return values


def parse_address(text: str, name: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[HOST]:PORT`. Raises ConfigurationError."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\s]+)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        raise ConfigurationError(f"{name}: {text!r} is not HOST:PORT")
    return match[1] or match[2], int(match[3])


def write_default(folder: Path) -> None:
    """An `aftersend.toml` in which every setting stands as a comment, unless there is one."""
    path = folder / FILE_NAME
    if path.exists():
        return
    lines = ["# aftersend: settings of this instance. A line without its # takes effect at the next start."]
    for setting in settings():
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        lines += ["", f"# {setting.help}", f"# {setting.name} = {msgspec.json.encode(default).decode()}"]
    lines += ["", "# The SMTP relay; its settings follow this line.", "# [relay]"]
    for setting in relay_settings():
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        name = setting.name.removeprefix("relay_")
        lines += ["", f"# {setting.help}", f"# {name} = {msgspec.json.encode(default).decode()}"]
    path.write_text("\n".join(lines) + "\n")
