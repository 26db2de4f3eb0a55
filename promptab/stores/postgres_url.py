"""URLs of PostgreSQL: told apart from others, checked, and shown without their secrets."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from promptab.errors import InvalidInputError

_SCHEMES = ("postgresql://", "postgres://")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@/]*)(:\d{0,5})?")
_SHOWN_OPTIONS = frozenset({"host", "port", "user", "dbname", "database", "sslmode"})
"""The options that name the database. Others may be secrets, and are left out where the URL is shown."""

_REMEDY = (
    "write postgresql://user:password@host:5432/database, with %XX for special characters in the password"
)


def is_postgres(url: str) -> bool:
    return url.startswith(_SCHEMES)


def shown_url(url: str) -> str:
    """Return the URL without password and options that may be secrets.

    Raises `InvalidInputError` where it is not well formed: a character that was not escaped in the password would
    make the rest of it a host or a path, and so bring it into messages.
    """
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _malformed(url) from None  # its message may quote the password
    credentials, _, hosts = parts.netloc.rpartition("@")
    well_formed = (
        all(_HOST.fullmatch(host) for host in hosts.split(","))
        and "#" not in url
        and "@" not in parts.path + parts.query
        and "/" not in parts.path[1:]
        and not any(ord(letter) < ord(" ") for letter in unquote(url))
    )
    if not well_formed:
        raise _malformed(url)
    user = credentials.partition(":")[0]
    shown = urlencode(
        [(name, value) for name, value in options if name in _SHOWN_OPTIONS], quote_via=quote, safe="/"
    )
    return f"postgresql://{user + '@' if user else ''}{hosts}{parts.path}{'?' + shown if shown else ''}"


def _malformed(url: str) -> InvalidInputError:
    return InvalidInputError("url", f"{url.partition(':')[0]}:…", "a URL of PostgreSQL", _REMEDY)
