"""User configurations: small hidden items of a folder, each under a name, as a server keeps them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from tests.fakes import _ews_soap as soap
from tests.fakes._ews_soap import M, T

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_NAME = re.compile(r"(?!IPM\.Configuration)[A-Za-z0-9.]{1,236}")


class Configurations:
    """Binary data by folder and name; no other kind is known here."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get(self, asked: Element) -> bytes:
        """GetUserConfiguration."""
        name = asked.find(f"{M}UserConfigurationName")
        assert name is not None
        assert asked.findtext(f"{M}UserConfigurationProperties") == "BinaryData"
        key = _key(name)
        if key not in self.kept:
            return _refused("GetUserConfiguration", "ErrorItemNotFound")
        told = (
            f"<m:UserConfiguration><t:UserConfigurationName Name={quoteattr(key[1])}>"
            f'<t:FolderId Id="F:{key[0]}"/></t:UserConfigurationName>'
            f"<t:BinaryData>{self.kept[key]}</t:BinaryData></m:UserConfiguration>"
        )
        return soap.answer("GetUserConfiguration", soap.success("GetUserConfiguration", told))

    def create(self, asked: Element) -> bytes:
        """CreateUserConfiguration."""
        key, data = _given(asked)
        if key in self.kept:
            return _refused("CreateUserConfiguration", "ErrorItemSave")
        self.kept[key] = data
        return soap.answer("CreateUserConfiguration", soap.success("CreateUserConfiguration"))

    def update(self, asked: Element) -> bytes:
        """UpdateUserConfiguration."""
        key, data = _given(asked)
        if key not in self.kept:
            return _refused("UpdateUserConfiguration", "ErrorItemNotFound")
        self.kept[key] = data
        return soap.answer("UpdateUserConfiguration", soap.success("UpdateUserConfiguration"))


def _given(asked: Element) -> tuple[tuple[str, str], str]:
    name = asked.find(f"{M}UserConfiguration/{T}UserConfigurationName")
    assert name is not None
    return _key(name), asked.findtext(f"{M}UserConfiguration/{T}BinaryData", "")


def _key(name: Element) -> tuple[str, str]:
    said = name.get("Name", "")
    assert _NAME.fullmatch(said), f"no name for a user configuration: {said}"
    return soap.folder_of(name[0]), said


def _refused(operation: str, code: str) -> bytes:
    return soap.answer(operation, soap.error(operation, code))
