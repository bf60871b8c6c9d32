"""Texts that begin alike, as a tree: what they share is read once.

Names of classes in one template share most of their tokens. A causal transformer may read the whole tree in one pass,
where each node sees what leads to it and nothing else: tree attention, as in SpecInfer, arXiv:2305.09781. Letters: C
texts, N nodes, S tokens that are asked about.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class PrefixTree(NamedTuple):
    """C texts, all tokens but their last as nodes of a tree, and where each token is asked about."""

    tokens: Tensor  # [N] int64, each behind the one that it follows
    depths: Tensor  # [N] int64: how many tokens stand before it
    sees: Tensor  # [N, N] bool: itself, and what leads to it
    texts: Tensor  # [S] int64: the text of each token that is asked about
    after: Tensor  # [S] int64: 1 + the node that it follows; 0 where it is the first
    asked: Tensor  # [S] int64: the token

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], *, given: int = 0) -> "PrefixTree":
        """The tree of some texts.

        Args:
            texts: tokens, each with its end.
            given: tokens at the start of each that are read and not asked about.
        """
        nodes: dict[tuple[int, ...], int] = {(): -1}
        asked: list[tuple[int, int, int]] = []
        for row, text in enumerate(texts):
            for place, token in enumerate(text):
                before = nodes.setdefault(tuple(text[:place]), len(nodes) - 1)
                if place >= given:
                    asked.append((row, 1 + before, token))
        paths = list(nodes)[1:]
        sees = torch.eye(len(paths), dtype=torch.bool)
        for node, path in enumerate(paths):
            if len(path) > 1:
                sees[node] |= sees[nodes[path[:-1]]]
        columns = torch.tensor(asked, dtype=torch.int64).reshape(-1, 3).unbind(dim=1)
        tokens = torch.tensor([path[-1] for path in paths], dtype=torch.int64)
        return cls(tokens, torch.tensor([len(path) - 1 for path in paths], dtype=torch.int64), sees, *columns)
