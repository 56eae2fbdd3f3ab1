"""The Blocks of services that call us: what Prefect asks of every Block, their secrets, their connectors."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks._base import ConnectorBlock
from blocks.alertmanager import AlertmanagerAccount
from blocks.gitea import GiteaAccount
from blocks.github import GitHubAccount
from blocks.gitlab import GitLabAccount
from blocks.grafana import GrafanaAccount
from blocks.sentry import SentryAccount
from blocks.webhook import WebhookAccount
from connectors import load
from parley.errors import BadSignature, ConfigurationError
from parley.messages import Accepted, Event, HookRequest
from tests.fakes import _alerting as alerting
from tests.fakes import _forge as forge
from tests.fakes import alertmanager, gitea, github, gitlab, grafana, sentry, webhook

KEY = "whsec_" + base64.b64encode(b"k" * 32).decode()

WHOLE: dict[type[ConnectorBlock], dict[str, Any]] = {
    GitHubAccount: {"secret": "s3cr3t-one", "old_secret": "s3cr3t-two"},
    GiteaAccount: {"secret": "s3cr3t-one", "old_secret": "s3cr3t-two"},
    GitLabAccount: {"token": "s3cr3t-one", "old_token": "s3cr3t-two", "signing_token": KEY},
    AlertmanagerAccount: {"token": "s3cr3t-one", "username": "am", "password": "s3cr3t-two"},
    GrafanaAccount: {"secret": "s3cr3t-one", "timestamp_header": "X-Stamp"},
    SentryAccount: {"client_secret": "s3cr3t-one", "old_client_secret": "s3cr3t-two"},
    WebhookAccount: {"secret": KEY, "url": "https://shop.example/in", "speaks": True, "service": "shop"},
}


class TestStandard(BlockStandardTestSuite):
    """Prefect's own suite."""

    @pytest.fixture(params=list(WHOLE), ids=lambda block: block.__name__)
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        found: type[Block] = request.param
        return found

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's test fetches the logo over the network; we ship no logo that would have to be fetched."""
        assert block._logo_url is None


@pytest.fixture(params=list(WHOLE), ids=lambda block: block.__name__)
def account(request: pytest.FixtureRequest) -> ConnectorBlock:
    block: type[ConnectorBlock] = request.param
    return block.model_validate(WHOLE[block])


def test_it_makes_its_connector(account: ConnectorBlock) -> None:
    made = account.connector("shop-floor")
    assert made.account == "shop-floor"
    assert type(made) is load(type(account).__module__.rpartition(".")[2])


def test_its_secrets_are_known_and_never_shown(account: ConnectorBlock) -> None:
    given = {name for name, value in WHOLE[type(account)].items() if "s3cr3t" in str(value) or value == KEY}
    assert given <= set(account.secret_fields())
    assert set(account.unsealed_fields()) == given
    for shown in (repr(account), str(account), str(account.model_dump()), repr(account.connector("a"))):
        assert "s3cr3t" not in shown
        assert KEY not in shown


async def test_sealed_secrets_are_opened_before_use(account: ConnectorBlock) -> None:
    for name in account.unsealed_fields():
        sealed = account.model_copy(update={name: SecretStr("sealed:v1:abc")})
        with pytest.raises(ConfigurationError, match=f"{name} of this account is sealed"):
            sealed.connector("a")

        async def opener(field: str, value: str) -> str:
            assert value == "sealed:v1:abc"
            return KEY

        assert (await sealed.opened(opener)).connector("a").account == "a"


@pytest.mark.parametrize("block", list(WHOLE), ids=lambda block: block.__name__)
def test_nothing_is_no_account(block: type[ConnectorBlock]) -> None:
    with pytest.raises((ConfigurationError, ValidationError)):
        block.model_validate({}).connector("a")
    empty = {name: "" for name, value in WHOLE[block].items() if isinstance(value, str)}
    with pytest.raises(ConfigurationError):
        block.model_validate({**empty, **({"url": ""} if block is WebhookAccount else {})}).connector("a")


async def taken(account: ConnectorBlock, request: HookRequest) -> list[Event]:
    """What a genuine call brings, at a connector made by the Block."""
    found: list[Event] = []

    async def accept(event: Event) -> Accepted:
        found.append(event)
        return Accepted(id=event.native_id, new=True)

    answer = await account.connector("a").handle_hook(request, accept)
    assert answer.status == 200
    return found


def now() -> int:
    return int(time.time())


@pytest.mark.parametrize(
    ("account", "call"),
    [
        (
            GitHubAccount(secret=SecretStr(f" {github.SECRET}\n")),
            lambda: github.delivery("push", forge.push()),
        ),
        (GiteaAccount(secret=SecretStr(gitea.SECRET)), lambda: gitea.delivery("push", gitea.push())),
        (
            GitLabAccount(signing_token=SecretStr(gitlab.SIGNING)),
            lambda: gitlab.delivery("Push Hook", gitlab.push(), at=now()),
        ),
        (
            AlertmanagerAccount(username=alertmanager.USER, password=SecretStr(alertmanager.PASSWORD)),
            lambda: alertmanager.delivery(
                alerting.call(alerting.alert()),
                alertmanager.basic(alertmanager.USER, alertmanager.PASSWORD),
            ),
        ),
        (
            GrafanaAccount(secret=SecretStr(grafana.SECRET), timestamp_header=grafana.STAMP_HEADER),
            lambda: grafana.delivery(grafana.call(grafana.alert()), at=now()),
        ),
        (
            SentryAccount(client_secret=SecretStr(sentry.SECRET)),
            lambda: sentry.delivery("issue", sentry.issue("created"), at=now()),
        ),
        (WebhookAccount(secret=SecretStr(webhook.SECRET)), lambda: webhook.call({"type": "a"})),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_the_connector_works_with_the_blocks_credentials(
    account: ConnectorBlock, call: Callable[[], HookRequest]
) -> None:
    assert len(await taken(account, call())) == 1
    bare = call().model_copy(update={"headers": {"content-type": "application/json"}})
    with pytest.raises(BadSignature):
        await taken(account, bare)
