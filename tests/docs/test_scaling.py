"""docs/scaling.md is what its model gives, and the model follows its inputs."""

from benchmarks import scaling_model as model


def test_page_is_what_the_model_gives():
    text = model.PAGE.read_text(encoding="utf-8")
    assert model.page_with(text, model.tables(model.read_inputs())) == text, (
        "run: python -m benchmarks.scaling_model --write"
    )


def test_calls_of_a_tutor_by_hand():
    load = model.conversation_load(2, 3, model.TUTOR_PROMPT, 10)
    fixed = len(model.TUTOR_PROMPT.read_text(encoding="utf-8")) / 4 + 1000
    assert load.calls == 6
    assert load.tokens_out == 60
    assert load.tokens_in == 2 * sum(fixed + turn * 235 for turn in (1, 2, 3))


def test_serving_by_hand():
    hardware = {"peak_tflops": 100, "prefill_use": 0.5, "bandwidth_gb_s": 1000, "decode_use": 0.5, "sequences": 10}
    server = model.serving(5, 2, hardware)
    assert server.prefill == 2 * 50e12 / 10e9
    assert server.decode == 10 * 2 * 500 / 10
    assert server.hours(3600 * server.prefill, 3600 * server.decode, 0.5) == 1.5
