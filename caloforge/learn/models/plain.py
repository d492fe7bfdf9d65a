"""Configurations of networks as plain values for `config.json`, and back.

JSON knows no tuples: they become lists, and lists become tuples again. Tables of a recipe that a
configuration holds become tables; each configuration says which of its fields they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import BaseModel

__all__ = ["plain", "tupled"]


def plain(config: Any) -> dict[str, Any]:
    """Return the fields of a frozen configuration as plain values; without units, as they are."""
    return {field.name: _plain(getattr(config, field.name)) for field in fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return list(value) if isinstance(value, tuple) else value


def tupled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with tuples in the place of lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
