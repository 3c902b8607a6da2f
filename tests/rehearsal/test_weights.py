"""Random weights: the table's architectures, the stand-in tokenizer, and a folder that is made once."""

import pytest

from rehearsal.weights import FIRST_SPECIAL, SPECIALS, config_of, make, processor_from, stand_in_processor
from safer_steer.model_shape import families
from safer_steer.vlm import family_of
from tiny_families import NEEDS_REAL_TOKENIZER, QWEN, REAL_TOKENIZER, model_of, processor_of


@pytest.mark.parametrize("name", families())
def test_parameters_are_those_of_the_model(name):
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config_of(families()[name]))
    assert families()[name].parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("family", QWEN, ids=lambda family: family.name)
def test_stand_in_has_the_real_ids_and_sizes(family):
    processor = stand_in_processor(family)
    assert family_of(processor.tokenizer, processor) == family
    tokenizer = processor.tokenizer
    assert len(tokenizer) == FIRST_SPECIAL + len(SPECIALS)
    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|image_pad|>"]) == [151645, 151655]
    text = "Describe the picture: naïve Ω, 图片 and 🙂"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    ids = [9_000, 100_000, 151_000]
    assert tokenizer.decode(ids) == " w9000 w100000 w151000", "padding words are plain text"


@NEEDS_REAL_TOKENIZER
def test_stand_in_and_real_tokenizer_agree_on_special_tokens():
    real = processor_from(str(REAL_TOKENIZER)).tokenizer
    assert real.convert_tokens_to_ids(list(SPECIALS)) == list(range(FIRST_SPECIAL, FIRST_SPECIAL + len(SPECIALS)))


@pytest.mark.parametrize("family", QWEN, ids=lambda family: family.name)
def test_a_folder_is_made_once_and_loads(tmp_path, family):
    from transformers import AutoModelForImageTextToText

    source = tmp_path / "source"
    processor = processor_of(family)
    for part in (model_of(family, processor.tokenizer), processor):
        part.save_pretrained(source)
    record = make(str(source), tmp_path / "made", layers=1, dtype="bfloat16")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "made")
    assert (len(model.model.language_model.layers), len(model.model.visual.blocks)) == (1, 1)
    again = processor_from(str(tmp_path / "made"))
    assert (type(again), again.image_processor.size) == (type(processor), processor.image_processor.size)
    assert record["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert make(str(source), tmp_path / "made", layers=1, dtype="bfloat16") == record
    assert make(str(source), tmp_path / "made", layers=2)["layers"] == 2
