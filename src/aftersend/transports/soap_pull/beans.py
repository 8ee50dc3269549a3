"""The beans that answers are made of, their keys in the order in which clients count them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

from aftersend.core.timestamps import SECOND
from aftersend.transports.soap_pull.session import Login

_LONDON = ZoneInfo("Europe/London")
"""Where the vendor's dates, which carry no zone, are meant to be."""


def number_of(login: Login) -> str:
    """What stands for the ids of pool, profile and login, of which there is one of each."""
    digest = blake2b(login.subscription.id.encode(), digest_size=4).digest()
    return str(int.from_bytes(digest) % 899_999_999 + 100_000_000)


def role_of(login: Login) -> str:
    """The key of the one role that a login has."""
    return f"IDENT_{number_of(login)}"


def login_beans(login: Login, context: str, now: int) -> dict[str, Any]:
    """What a login is told of itself, in the vendor's order; `bus_entity_context` carries the session's id."""
    number, role = number_of(login), role_of(login)
    user, tenant = login.transport.user, login.subscription.tenant
    moment = datetime.fromtimestamp(now // SECOND, UTC).astimezone(_LONDON).strftime("%d/%m/%Y %H:%M")
    return dict(
        [
            _bean("bus_entity_preferencePool", {"poolId": number, "ownerType": "pool", **_PREFERENCES}),
            _bean("bus_entity_account_identity", _identity(number, login)),
            _bean("bus_entity_preferenceIdentity", {"identityId": number, "ownerType": "identity", **_PREFERENCES}),
            _bean("bus_entity_context", _context(number, role, login), context),
            _bean("bus_entity_account_pool", _pool(number, tenant)),
            _bean("bus_entity_account_login", _account(number, role, user, moment)),
            _bean("bus_entity_preferenceLogin", {"loginId": number, "ownerType": "login", **_PREFERENCES}),
        ]
    )


_PREFERENCES: Mapping[str, Any] = {"preference": [], "preferenceTypeMap": None, "preferenceNameMap": None}


def _bean(name: str, values: Mapping[str, Any], id_: str = "") -> tuple[str, dict[str, Any]]:
    """Every bean ends in the same three keys; its id is its name in camel case where it has none of its own."""
    own = id_ or "".join([part[:1].upper() + part[1:] for part in name.split("_")])
    return name, {**values, "status": "modified", "beanId": own[:1].lower() + own[1:], "beanName": name}


def _identity(number: str, login: Login) -> dict[str, Any]:
    return {
        "identityId": number,
        "identityName": login.subscription.name,
        "activeInd": "Y",
        "displayName": login.subscription.name,
        "forwardEmail": "",
        "customDomain": "",
        "dynamicReplyDomain": "",
        "allowInterfacesInd": "Y",
        "transactionalInd": "N",
        "defaultLanguage": "en_GB.UTF-8",
        "approverEmails": [],
    }


def _context(number: str, role: str, login: Login) -> dict[str, Any]:
    return {
        "dbName": "AFTERSEND",
        "loginId": number,
        "userName": login.transport.user,
        "currentRoleKey": role,
        "poolId": number,
        "identityId": number,
        "roleList": {role: login.subscription.name},
        "isAdminLogin": "",
    }


def _pool(number: str, tenant: str) -> dict[str, Any]:
    return {
        "expiryDate": None,
        "poolId": number,
        "poolName": tenant,
        "activeInd": "Y",
        "optOutLevel": "SINGLE",
        "accountType": "FREE",
        "maxCustomFields": "100",
    }


def _account(number: str, role: str, user: str, moment: str) -> dict[str, Any]:
    return {
        "lastProfileKey": role,
        "loginId": number,
        "userName": user,
        "activeInd": "Y",
        "lastAccessDtTm": moment,
        "lastLoginDtTm": moment,
        "systemLoginInd": "Y",
    }


def batch_bean(count: int, meta: Mapping[str, str], data: str) -> dict[str, Any]:
    """A batch of events."""
    return dict(
        [_bean("bus_entity_eventNotificationBatch", {"eventCount": count, "eventMeta": meta, "eventData": data})]
    )
