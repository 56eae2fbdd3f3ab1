"""The sealed fields of Blocks, which lie in Prefect's database and are sealed with the same data keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from parley.errors import SealError
from parley.people.sealing import Keyring, is_sealed_text, raw_of, sealed_by
from parley.runs.prefect_api import PrefectApi


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedField:
    """One field of one Block, as it is saved."""

    block_id: str
    block_type: str
    block_name: str
    field: str
    text: str = dataclass_field(repr=False)

    @property
    def where(self) -> str:
        """As it is told: `block / type / name / field`."""
        return f"block / {self.block_type} / {self.block_name} / {self.field}"


async def sealed_fields(prefect: PrefectApi) -> AsyncIterator[SealedField]:
    """Every sealed field of every saved Block. Raises `PrefectUnavailable`, `PrefectRefused`."""
    offset = 0
    while page := await prefect.block_documents(offset):
        offset += len(page)
        for block in page:
            kind, name = str((block.get("block_type") or {}).get("slug")), block.get("name")
            for key, value in (block.get("data") or {}).items():
                if name and isinstance(value, str) and is_sealed_text(value):
                    yield SealedField(
                        block_id=str(block["id"]),
                        block_type=kind,
                        block_name=str(name),
                        field=key,
                        text=value,
                    )


async def count_by_key(prefect: PrefectApi) -> Counter[str]:
    """How many fields each key sealed, by its id. Raises as `sealed_fields`."""
    return Counter(
        [key_id async for one in sealed_fields(prefect) if (key_id := sealed_by(raw_of(one.text) or b""))]
    )


async def reseal(prefect: PrefectApi, keyring: Keyring) -> list[str]:
    """Seal with the present key what others sealed; the places that do not open stay. Raises as `sealed_fields`.

    What somebody saves meanwhile stays too.
    """
    broken = []
    for one in [one async for one in sealed_fields(prefect)]:
        raw = raw_of(one.text)
        if raw is not None and keyring.is_newest(raw):
            continue
        try:
            clear = keyring.open_text(one.block_type, one.block_name, one.field, one.text)
        except SealError:
            broken.append(one.where)
            continue
        fresh = keyring.seal_text(one.block_type, one.block_name, one.field, clear)
        # Right before the change, because Prefect has no change that depends on what is there.
        if await _is_unchanged(prefect, one):
            await prefect.update_block(one.block_id, {one.field: fresh})
    return broken


async def _is_unchanged(prefect: PrefectApi, one: SealedField) -> bool:
    block = await prefect.block_document(one.block_id) or {}
    return bool(block.get("name") == one.block_name and (block.get("data") or {}).get(one.field) == one.text)
