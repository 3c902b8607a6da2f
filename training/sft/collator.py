"""Encoded rows -> one padded batch for a vision-language model: ids, labels, picture pixels.

A batch without a picture gets one more row, a blank picture that carries no label. So the vision tower runs on every
rank in every step, and ranks that mix text-only and picture rows neither hang (ZeRO-3) nor differ in their gradients.
"""

from typing import Any

import torch
from PIL import Image

from safer_steer.errors import UserError
from safer_steer.images import load_image
from safer_steer.picture_size import PictureSize
from safer_steer.vlm import family_of
from training.sft.encode import IGNORED

BLANK_SIDE = 56


class DialogueCollator:
    """Pads rows of `training.sft.data.prepare` on the right and loads their pictures.

    Args:
        processor: the checkpoint's processor, with the picture limit of the run (`load_processor`).
    """

    def __init__(self, processor: Any):
        self.processor = processor
        self.pad_id = processor.tokenizer.pad_token_id
        self.size = PictureSize.of(processor)
        self.family = family_of(processor.tokenizer, processor)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Builds the batch.

        Returns:
            `input_ids`, `attention_mask`, `labels` and the family's type ids (batch, seq), which are 1 on image tokens;
            `pixel_values` and, where the processor says it, `image_grid_thw` (pictures, 3) in patches.
        """
        pictures = [load_image(path, size=self.size) for row in rows for path in row["pictures"]]
        if not pictures:
            pictures, rows = [Image.new("RGB", self.size.fit(BLANK_SIDE, BLANK_SIDE))], [*rows, self._blank_row()]
        pixels = self.processor.image_processor(images=pictures, return_tensors="pt")
        input_ids = self._pad([row["input_ids"] for row in rows], self.pad_id)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        attention = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        is_picture = (input_ids == self.processor.image_token_id) & (attention == 1)
        grids = {"image_grid_thw": pixels["image_grid_thw"]} if "image_grid_thw" in pixels else {}
        wanted = len(pictures) * getattr(self.processor, "image_seq_length", 0)
        if grids:
            wanted = grids["image_grid_thw"].prod(-1).sum().item() // self.processor.image_processor.merge_size**2
        if int(is_picture.sum()) != wanted:
            names = ", ".join(str(row["id"]) for row in rows)
            raise UserError(
                f"rows {names}: {int(is_picture.sum())} image tokens, but the pictures make {wanted}; a picture file "
                "changed since the rows were encoded: run again"
            )
        return {
            "input_ids": input_ids,
            "attention_mask": attention,
            "labels": self._pad([row["labels"] for row in rows], IGNORED),
            self.family.type_ids: is_picture.long(),
            "pixel_values": pixels["pixel_values"],
            **grids,
        }

    def _pad(self, rows: list[list[int]], value: int) -> torch.Tensor:
        longest = max(len(row) for row in rows)
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    def _blank_row(self) -> dict[str, Any]:
        """A row that shows one blank picture and teaches nothing."""
        processor, family = self.processor, self.family
        ends = processor.tokenizer.convert_tokens_to_ids([family.picture_start, family.picture_end])
        count = self.size.tokens(BLANK_SIDE, BLANK_SIDE)
        ids = [ends[0], *[processor.image_token_id] * count, ends[1]]
        return {"id": "(blank picture)", "input_ids": ids, "labels": [IGNORED] * len(ids), "pictures": []}
