"""Texts as a tree, against a tree drawn by hand."""

from diptych.train.prefix_tree import PrefixTree


def test_a_tree_of_three_texts_as_drawn_by_hand():
    tree = PrefixTree.of([[1, 7, 2], [1, 7, 9, 2], [1, 8, 2]], given=1)
    assert tree.tokens.tolist() == [1, 7, 9, 8]
    assert tree.depths.tolist() == [0, 1, 2, 1]
    assert tree.sees.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]
    told = list(zip(tree.texts.tolist(), tree.after.tolist(), tree.asked.tolist(), strict=True))
    assert told == [(0, 1, 7), (0, 2, 2), (1, 1, 7), (1, 2, 9), (1, 3, 2), (2, 1, 8), (2, 4, 2)]


def test_without_a_start_the_first_token_is_asked_about_before_all_nodes():
    tree = PrefixTree.of([[2], [5, 2]])
    assert tree.tokens.tolist() == [5]
    assert list(zip(tree.texts.tolist(), tree.after.tolist(), tree.asked.tolist(), strict=True)) == [
        (0, 0, 2),
        (1, 0, 5),
        (1, 1, 2),
    ]
