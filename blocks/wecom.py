"""The credentials of a WeCom application."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, HttpUrl, SecretStr

from blocks._base import ConnectorBlock
from parley.errors import ConfigurationError

if TYPE_CHECKING:
    from parley.messages import Connector

_MEND = {
    "secret": "Copy it from the application's page in the WeCom admin console.",
    "token": "Copy it from the application's page, under Receive messages, API receiving.",
    "encoding_aes_key": "Copy it from the application's page, under Receive messages, API receiving.",
}


_ROBOT = re.compile(r"([0-9A-Za-z_\-]{1,64})=(?:https?://\S+[?&]key=)?([0-9A-Za-z\-]{16,64})")


class WecomApp(ConnectorBlock):
    """A self-built application of a company in WeCom: people write to it, automations answer.

    Example:
        Load the application and make its connector:
        ```python
        from blocks.wecom import WecomApp

        app = WecomApp.load("BLOCK_NAME")
        wecom = app.connector("my-wecom")
        ```
    """

    _block_type_name: ClassVar[str | None] = "Parley WeCom application"
    _block_type_slug: ClassVar[Any] = "parley-wecom-app"
    _description: ClassVar[str | None] = (
        "A self-built application of a company in WeCom: people write to it, automations answer."
    )
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl(
        "https://developer.work.weixin.qq.com/document/path/90930"
    )

    corp_id: Annotated[
        str, Field(title="Corp id", description="The company's id, found under My company (ww...).")
    ]
    agent_id: Annotated[
        int, Field(title="Agent id", gt=0, description="The application's number, found on its page.")
    ]
    secret: Annotated[
        SecretStr, Field(title="Secret", description="The application's secret, found on its page.")
    ]
    token: Annotated[
        SecretStr,
        Field(title="Token", description="Of the application's API receiving: signs what WeCom sends us."),
    ]
    encoding_aes_key: Annotated[
        SecretStr,
        Field(
            title="EncodingAESKey",
            description="Of the application's API receiving, 43 characters: encrypts what WeCom sends us.",
        ),
    ]
    robots: Annotated[
        SecretStr,
        Field(
            title="Group robots",
            description="Robots in groups, one a line, as name=webhook address: routes call them robot:name.",
        ),
    ] = SecretStr("")
    base_url: Annotated[
        str,
        Field(
            title="API address",
            description="Address of WeCom's API; another one is for a private WeCom or for tests.",
        ),
    ] = "https://qyapi.weixin.qq.com/cgi-bin/"

    def connector(self, account: str) -> Connector:
        """The connector of this application. Opens no connection. Raises `ConfigurationError`."""
        from connectors.wecom import Wecom

        corp_id = self.corp_id.strip()
        if not corp_id:
            raise ConfigurationError(
                "corp_id of this WeCom application is empty: it stands under My company."
            )
        return Wecom(
            account,
            corp_id=corp_id,
            agent_id=self.agent_id,
            secret=self._secret("secret"),
            token=self._secret("token"),
            encoding_aes_key=self._secret("encoding_aes_key"),
            robots=self._robots(),
            base_url=self.base_url,
        )

    def _robots(self) -> dict[str, str]:
        lines = self._in_clear("robots").split()
        found = [_ROBOT.fullmatch(line) for line in lines]
        if not all(found):
            at = found.index(None) + 1
            raise ConfigurationError(
                f"Entry {at} of robots of this WeCom application is not name=webhook address, as WeCom shows it."
            )
        return {robot[1]: robot[2] for robot in found if robot}

    def _secret(self, name: str) -> str:
        value = self._stripped(name)
        if not value:
            raise ConfigurationError(f"{name} of this WeCom application is empty. {_MEND[name]}")
        return value
