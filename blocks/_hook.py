"""What the Blocks of services that call us share: a secret in clear, or a sentence that says why not."""

from __future__ import annotations

from pydantic import SecretStr

from blocks._base import SEALED_PREFIX, ConnectorBlock
from parley.errors import ConfigurationError


def clear(block: ConnectorBlock, name: str) -> str:
    """The value of a secret field, without blanks around it. Raises `ConfigurationError` while it is sealed."""
    value = getattr(block, name)
    secret = value.get_secret_value().strip() if isinstance(value, SecretStr) else ""
    if secret.startswith(SEALED_PREFIX):
        raise ConfigurationError(f"{name} of this account is sealed: open the Block first.")
    return secret
