"""Prices by model in one YAML file, for endpoints that name none; estimates and the live cost read the same.

checked: 2026-11-25
models: {gpt-4.1: {input: 2.0, output: 8.0}}    # USD per million tokens
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from safer_steer.config import Section, load_raw, validate

Usd = Annotated[float, Field(ge=0)]


class Price(Section):
    """USD per million tokens of the prompt and of the answer."""

    input: Usd
    output: Usd


class PriceList(Section):
    """What models cost, and the day on which someone looked it up."""

    checked: date
    models: dict[str, Price]


def load_prices(path: str | Path) -> PriceList:
    """Reads a price file.

    Raises:
        UserError: the file is missing, or not of this form.
    """
    raw = load_raw(path)
    return validate(PriceList, raw, str(path))


def with_prices(roles: dict[str, Any], prices: PriceList) -> dict[str, Any]:
    """The endpoints' plain config with `price_in` and `price_out` of their models, where they name none themselves."""
    priced = {}
    for role, endpoint in roles.items():
        price = prices.models.get(str(endpoint.get("model"))) if isinstance(endpoint, dict) else None
        found = {"price_in": price.input, "price_out": price.output} if price else {}
        priced[role] = found | endpoint if isinstance(endpoint, dict) else endpoint
    return priced
