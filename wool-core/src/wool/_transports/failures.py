"""Why a place could not be dialled, in words for users."""

from __future__ import annotations

import os
import re
import socket
import ssl

from wool.abc import ConnectFailed

_CERTIFICATE_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself, by none of the authorities that we trust",
    19: "is signed by none of the authorities that we trust",
    20: "is signed by none of the authorities that we trust",
    21: "is signed by none of the authorities that we trust",
    23: "has been revoked",
    62: "is made out to another name than {name!r}",
    64: "is made out to another address than {name!r}",
}
"""By the numbers that OpenSSL gives them."""


def words(error: OSError | UnicodeError) -> str:
    """Says what the system has against a place; Python adds to that what nobody need know."""
    if isinstance(error, UnicodeError):
        return "it cannot be one"
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)


def not_reached(address: object, error: OSError | UnicodeError) -> ConnectFailed:
    """No connection below TLS and what comes above it."""
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return ConnectFailed(f"{address}: there is no host of that name ({words(error)})")
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return ConnectFailed(f"{address}: nobody listens there", reason="refused")
    if isinstance(error, TimeoutError):
        return ConnectFailed(f"{address}: the host does not answer", reason="timeout")
    return ConnectFailed(f"{address}: {words(error)}")


def no_tls(address: object, error: Exception, name: str | None = None) -> ConnectFailed:
    """The TLS handshake has failed.

    Only an alert and a certificate say that it will fail again. Somebody who hangs up, or answers
    with something else, may be a proxy whose worker is about to be there.

    Args:
        name: what the certificate has to be made out to.
    """
    reason = error.reason or "" if isinstance(error, ssl.SSLError) else None
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _CERTIFICATE_FAULTS.get(error.verify_code, f"is no good: {error.verify_message}")
        text = f"its certificate is not accepted: it {fault.format(name=name)}"
    elif reason and "ALERT" in reason:
        alert = re.sub(r"^.*ALERT_", "", reason).replace("_", " ").lower()
        text = f"it refuses us in the TLS handshake: {alert}"
    elif reason and "BAD_SIGNATURE" in reason:
        text = "it does not have the key of the certificate that it shows: it is somebody else"
    elif reason is None or "EOF" in reason:
        text = (
            "it hung up during the TLS handshake: "
            "it does not speak TLS, does not accept our certificate, or was just ending"
        )
        return ConnectFailed(f"{address}: {text}")
    else:
        text = f"it does not speak TLS, or not such as we do ({reason or error})"
        return ConnectFailed(f"{address}: {text}")
    return ConnectFailed(f"{address}: {text}", reason="tls")
