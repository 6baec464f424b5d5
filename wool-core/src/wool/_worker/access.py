"""The credentials that the settings hold."""

from __future__ import annotations

from wool._security.credentials import Credentials, MutualTls, Token, environment_token
from wool._settings.model import Tls
from wool._settings.settings import Settings
from wool.exceptions import ConfigurationError


def credentials_of(settings: Settings) -> Credentials | None:
    """Returns credentials for networks, from `WOOL_TOKEN`, `WOOL_TOKEN_FILE` or the table `tls`.

    Returns None if nothing is set.

    Raises:
        ConfigurationError: what is set is of no use, or does not go together.
    """
    tls, origins = settings.options("tls", Tls)
    token = environment_token()
    own = {"cert": tls.cert, "key": tls.key}
    given = [f"{name} from {origins[name]}" for name, value in own.items() if value is not None]
    if token is not None:
        if given:
            raise ConfigurationError(
                f"there is a token in the environment, and a certificate ({', '.join(given)}): "
                "workers authenticate with one or the other, so unset one of them"
            )
        return Token(token, proxy=tls.proxy, ca=str(tls.ca) if tls.ca and tls.proxy else None)
    if not given:
        return None
    missing = [name for name in ("ca", "cert", "key") if getattr(tls, name) is None]
    if missing:
        raise ConfigurationError(
            f"mutual TLS needs ca, cert and key: {' and '.join(missing)} is missing beside "
            f"{', '.join(given)}"
        )
    return MutualTls(str(tls.ca), str(tls.cert), str(tls.key), tls.name)
