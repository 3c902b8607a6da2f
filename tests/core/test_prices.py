import pytest

from safer_steer.errors import UserError
from safer_steer.llm.prices import load_prices, with_prices


def test_prices_fill_what_an_endpoint_does_not_say(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("checked: 2026-01-01\nmodels:\n  small: {input: 2, output: 8}\n")
    roles = {"red": {"model": "small"}, "blue": {"model": "small", "price_in": 5}, "judge": {"model": "other"}}
    assert with_prices(roles, load_prices(path)) == {
        "red": {"model": "small", "price_in": 2, "price_out": 8},
        "blue": {"model": "small", "price_in": 5, "price_out": 8},
        "judge": {"model": "other"},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not found"),
        ("models: {}", "checked"),
        ("checked: 2026-01-01\nmodel: 1", "unknown key"),
        ("checked: 2026-01-01\nmodels: {small: {input: -1, output: 0}}", "greater than or equal to 0"),
    ],
)
def test_a_bad_price_file_is_one_clear_error(tmp_path, text, said):
    path = tmp_path / "prices.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        load_prices(path)
