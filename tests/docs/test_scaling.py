"""docs/scaling.md is what its model gives, and the model follows its inputs."""

from benchmarks import scaling_model as model


def test_page_is_what_the_model_gives():
    text = model.PAGE.read_text(encoding="utf-8")
    assert model.page_with(text, model.tables(model.read_inputs())) == text, (
        "run: python -m benchmarks.scaling_model --write"
    )
