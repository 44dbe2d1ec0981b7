"""What is read off the states of a sentence encoder beside its vectors: where a value begins and ends in a text.

As in extractive question answering: a score of each token for both, and one that the text does not say it (Devlin et
al., NAACL 2019, section 4.3; Rajpurkar et al., "Know What You Don't Know", ACL 2018,
https://arxiv.org/abs/1806.03822). The encoder knows small letters alone, so a vector is added where a token begins with
a capital: names and titles do.
"""

import mlx.core as mx
import mlx.nn as nn

from callwright.models.sentence_encoder import WIDTH

LONGEST_SPAN = 30  # tokens of a value
FAR = -1e9


class EncoderHeads(nn.Module):
    """Scores of spans, of an encoder's states of a width."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.ends, self.unsaid, self.capital = nn.Linear(width, 2), mx.zeros(1), mx.zeros(width)

    def __call__(self, states: mx.array, first: mx.array, lengths: mx.array) -> mx.array:
        """Scores [texts, tokens * tokens + 1]: of the span from token i to j at i * tokens + j, of none behind them.

        states [texts, tokens, width]; a value begins at token `first` [texts] of its text or later, and ends before the
        last of its `lengths` [texts], which closes it. Spans that cannot be are FAR.
        """
        scores, place = self.ends(states), mx.arange(states.shape[1])
        begins, ends = scores[..., 0], scores[..., 1]
        row, column = place[:, None], place[None]
        possible = ((column >= row) & (column < row + LONGEST_SPAN))[None]
        possible = possible & (row[None] >= first[:, None, None]) & (column[None] < lengths[:, None, None] - 1)
        found = mx.where(possible, begins[..., None] + ends[:, None, :], FAR).reshape(len(states), -1)
        return mx.concatenate([found, (begins[:, 0] + ends[:, 0] + self.unsaid)[:, None]], axis=1)
