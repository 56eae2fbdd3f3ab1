"""An automation that calls the company's API, as docs/automations.md shows it, and one that names no Block."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import BaseModel, Field

from blocks.rest_api import call_api
from parley import automation


class Stock(BaseModel):
    """What the company's API answers."""

    article: str
    pieces: int


Article = Annotated[str, Field(description="Number of the article.")]


async def _stock(article: str) -> str:
    found = await call_api("erp", "GET", "/stock/{article}", values={"article": article}, model=Stock)
    return f"{found.article}: {found.pieces} pieces"


@automation(summary="How many of an article there are.", effect="read", blocks=("parley-rest-api/erp",))
@flow
async def stock(article: Article) -> str:
    return await _stock(article)


@automation(summary="The same, without the right to the token.", effect="read")
@flow
async def sly_stock(article: Article) -> str:
    return await _stock(article)
