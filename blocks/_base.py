"""What every credential Block here shares: its secrets may be sealed, and an account's makes its connector.

Prefect encrypts Blocks with AES-128 and one key for all; we seal each secret field with AES-256-GCM before Prefect
sees it. A sealed value is a string that starts with `SEALED_PREFIX`; only the hub can open it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from prefect.blocks.core import Block
from pydantic import SecretStr

from parley.errors import ConfigurationError

if TYPE_CHECKING:
    from parley.messages import Connector

SEALED_PREFIX = "sealed:v1:"

Opener = Callable[[str, str], Awaitable[str]]
"""Opens one sealed field: (field name, sealed value) -> clear value."""


class SecretBlock(Block):
    """Credentials. Secret fields are `SecretStr`, sealed by `parley connect` before Prefect sees them."""

    _block_type_slug: ClassVar[str | None] = None

    @classmethod
    def secret_fields(cls) -> tuple[str, ...]:
        """Names of the fields that hold secrets."""
        return tuple(
            name for name, field in cls.model_fields.items() if SecretStr in _types(field.annotation)
        )

    def unsealed_fields(self) -> tuple[str, ...]:
        """Names of the secret fields that hold a value in clear."""
        values = {name: self._clear(name) for name in self.secret_fields()}
        return tuple(name for name, value in values.items() if value and not value.startswith(SEALED_PREFIX))

    async def opened(self, opener: Opener) -> Self:
        """A copy whose sealed secrets are opened, for use in this process only; never saved."""
        changed = {
            name: SecretStr(await opener(name, value))
            for name in self.secret_fields()
            if (value := self._clear(name)).startswith(SEALED_PREFIX)
        }
        return self.model_copy(update=changed)

    def _in_clear(self, name: str) -> str:
        """The value of a secret field. Raises `ConfigurationError` while it is sealed."""
        value = self._clear(name)
        if value.startswith(SEALED_PREFIX):
            raise ConfigurationError(f"{name} of this account is sealed: open the Block first.")
        return value

    def _stripped(self, name: str) -> str:
        """The same without blanks around it, as they come with what is copied."""
        return self._in_clear(name).strip()

    def _clear(self, name: str) -> str:
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else ""


class ConnectorBlock(SecretBlock):
    """Credentials of one account on one platform."""

    @abstractmethod
    def connector(self, account: str) -> Connector:
        """Make the connector of this account. Opens no connection. Raises `ConfigurationError`."""


def _types(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", (annotation,))
