"""Published splits are taken as they are; the rest is drawn with a seed."""

import numpy as np
import pytest

from so3k_md.data import make_split
from so3k_md.errors import So3kError


def test_seeded_split_is_the_authors_permutation():
    split = make_split(20, n_train=12, n_valid=5, seed=4)
    order = np.random.RandomState(4).permutation(20)
    np.testing.assert_array_equal(split.train, order[:12])
    np.testing.assert_array_equal(split.valid, order[12:17])
    assert not np.array_equal(make_split(20, 12, 5, seed=5).train, split.train)


def test_all_that_is_left_is_for_training():
    split = make_split(10, n_valid=3)
    assert sorted([*split.train, *split.valid]) == list(range(10))
    assert len(make_split(10).valid) == 0


def test_published_npz(tmp_path):
    path = tmp_path / "split.npz"
    np.savez(path, train_idx=[5, 3, 1], val_idx=[0, 2], test_idx=[4])
    split = make_split(6, train_file=path)
    assert split.train.tolist() == [5, 3, 1]
    assert split.valid.tolist() == [0, 2]


@pytest.mark.parametrize("text", ["7\n2\n9\n4\n", "7, 2,\n9 4  # published\n"])
def test_published_text(tmp_path, text):
    train, valid = tmp_path / "index_train_01.csv", tmp_path / "valid.txt"
    train.write_text(text)
    valid.write_text("0\n1\n")
    split = make_split(10, train_file=train, valid_file=valid)
    assert split.train.tolist() == [7, 2, 9, 4]
    assert split.valid.tolist() == [0, 1]
    drawn = make_split(10, n_train=3, n_valid=1, seed=1, train_file=train)
    assert sorted([*drawn.train, *drawn.valid]) == [2, 4, 7, 9]
    assert (len(drawn.train), len(drawn.valid)) == (3, 1)


@pytest.mark.parametrize(
    ("arrays", "arguments", "says"),
    [
        ({"train": [1, 2, 10]}, {}, "index 10 is outside 0 … 9"),
        ({"train": [1, -1]}, {}, "index -1 is outside"),
        ({"train": [1, 2, 2]}, {}, "index 2 appears twice"),
        ({"train": [1, 2], "valid": [2, 3]}, {}, "frame 2 is in training and validation"),
        ({"train": [1.5, 2.0]}, {}, "integers are needed"),
        ({"train": []}, {}, "holds no indices"),
        ({"test": [1]}, {}, "keys present: test"),
        ({"train": [1, 2], "valid": [3]}, {"n_train": 1}, "has 2 frames where n_train is 1"),
        ({"train": [1, 2]}, {"n_train": 2, "n_valid": 1}, "a sum of at most this number"),
    ],
)
def test_refuses_published(tmp_path, arrays, arguments, says):
    np.savez(tmp_path / "split.npz", **{key: np.array(value) for key, value in arrays.items()})
    with pytest.raises(So3kError, match=says):
        make_split(10, train_file=tmp_path / "split.npz", **arguments)


def test_refuses_others(tmp_path):
    (tmp_path / "words.txt").write_text("one two\n")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    for arguments, says in [
        ({"train_file": tmp_path / "none.txt"}, "no such split file"),
        ({"train_file": tmp_path / "broken.npz"}, "cannot be read as npz"),
        ({"train_file": tmp_path / "words.txt"}, "cannot be read as frame indices"),
        ({"valid_file": tmp_path / "words.txt"}, "without training indices"),
        ({"n_train": 8, "n_valid": 3}, "a sum of at most this number"),
        ({"n_train": 0}, "n_train of at least 1"),
    ]:
        with pytest.raises(So3kError, match=says):
            make_split(10, **arguments)
