"""Signatures of webhooks: Standard Webhooks 1.0, https://github.com/standard-webhooks/standard-webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from promptab.errors import InvalidInputError

PREFIX = "whsec_"
_LEAST_BYTES, _MOST_BYTES = 24, 64
"""Of a secret, by the specification."""


def read_secret(text: str, *, variable: str) -> bytes:
    """Return the key of a secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`; without the prefix it may be, too.

    Raises `InvalidInputError`, which names the variable that held it, and never the secret.
    """
    bound = f"whsec_ and base64 of {_LEAST_BYTES} to {_MOST_BYTES} bytes"
    remedy = "make one: python -c \"import base64, os; print('whsec_' + base64.b64encode(os.urandom(32)).decode())\""
    try:
        key = base64.b64decode(text.strip().removeprefix(PREFIX) + "==", validate=False)
    except (binascii.Error, ValueError):
        raise InvalidInputError(variable, "what it holds", bound, remedy) from None
    if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise InvalidInputError(variable, f"a secret of {len(key)} bytes", bound, remedy)
    return key


def signature_headers(message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """Return the three headers; `timestamp` is in seconds since 1970.

    One signature for each key, so that a receiver may know the old or the new one while they are exchanged.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys]
    signatures = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        **({"webhook-signature": signatures} if keys else {}),
    }
