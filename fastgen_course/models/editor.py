"""A picture's tokens and an instruction in, the edited picture's tokens out, in one forward pass.

An edit of a picture is nearly decided by the picture and the instruction, so that its tokens hang
together through what is given and hardly through each other: drawing all of them at once, which
blurs a picture drawn from a caption, costs little here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fastgen_course.models.masked import MaskedConfig, MaskedModel


@dataclass(frozen=True)
class EditorConfig(MaskedConfig):
    """Sizes as in `TransformerConfig`; a picture's tokens stand on a grid of 7x7 places."""

    width: int = 128
    layers: int = 6
    heads: int = 4


EDITOR_BASE = EditorConfig()


class Editor(MaskedModel):
    """The bidirectional transformer with two outputs a place: a token and a piece of a mask.

    Words left empty are the instruction "as it is": the editor then restores the picture, and its
    mask is the segmentation of what it was shown.
    """

    def __init__(self, config: EditorConfig = EDITOR_BASE) -> None:
        super().__init__(config)
        self.side = round(config.image_tokens**0.5)
        self.pixels = 28 // self.side  # a token's place covers pixels x pixels of the picture
        self.mask_head = nn.Linear(config.width, self.pixels**2)
        nn.init.normal_(self.mask_head.weight, std=0.02)

    def forward(self, words: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What to draw and where the garment will be.

        Args:
            words: int64 (B, L), the instruction, 0 after its last word.
            tokens: int64 (B, image_tokens), the picture to edit.

        Returns:
            Logits (B, image_tokens, codes) of the new tokens, and logits (B, 28, 28) of the mask.
        """
        states = self.image_states(words, tokens)
        first = self.config.first_code
        logits = states @ self.head.weight[first : first + self.config.codes].T
        return logits, self.assemble(self.mask_head(states))

    def assemble(self, pieces: Tensor) -> Tensor:
        """Pieces (B, image_tokens, pixels^2) to a picture (B, 28, 28), row by row."""
        batch = len(pieces)
        grid = pieces.view(batch, self.side, self.side, self.pixels, self.pixels)
        return grid.permute(0, 1, 3, 2, 4).reshape(batch, 28, 28)
