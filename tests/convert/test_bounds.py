"""Small foreign files that stand for endless ones are refused at once, and damaged ones in one line."""

import io
import pickle
import random
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from foreign_models import jax_files, torch_file

from so3k_md.convert.bounds import MAX_OPERATIONS
from so3k_md.convert.so3lr import build, convert
from so3k_md.convert.unpickle import read_pickle, read_torch
from so3k_md.errors import So3kError

AT_ONCE = 5.0  # s; without bounds each of these takes hours, or all memory


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def doubled(kind: type, times: int = 45):
    """A container of two of a container of two of …"""
    value = kind([1])
    for _ in range(times):
        value = kind([value, value])
    return value


def nested(name: str):
    value = {name: 1}
    for _ in range(100):
        value = {name: value}
    return value


def contains_itself(value):
    (value.append if isinstance(value, list) else lambda one: value.update(a=one))(value)
    return value


TUPLE = b")" + 45 * b"2\x86"  # of two tuples of two tuples of …, whose hash alone would take for ever
COLLIDING = {k * (2**61 - 1): 0 for k in range(2, 30_000)}  # all of one hash
PICKLES = {
    "lists": pickle.dumps(doubled(list)),
    "tuples": pickle.dumps(doubled(tuple)),
    "in a list of itself": pickle.dumps(contains_itself([])),
    "in a dictionary of itself": pickle.dumps(contains_itself({})),
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a key": b"\x80\x02}" + TUPLE + b"K\x01s.",
    "keys": b"\x80\x02}(" + TUPLE + b"K\x01u.",
    "keys of old": b"\x80\x02(" + TUPLE + b"K\x01d.",
    "members": b"\x80\x04\x8f(" + TUPLE + b"\x90.",
    "frozen members": b"\x80\x04(" + TUPLE + b"\x91.",
    "a set made by a call": pickle.dumps({doubled(tuple, 18)}, 2),
    "one hash": pickle.dumps(COLLIDING),
    "an identifier": b"\x80\x02(" + pickle.dumps(doubled(list), 2)[2:-1] + b"K\x01K\x01K\x01K\x01tQ.",
    "operations": b"\x80\x02" + b"N0" * MAX_OPERATIONS + b"N.",
    "a name": b"\x80\x02c" + b"m" * 1_000_000 + b"\nx\n.",
    "a long key": pickle.dumps({"k" * 1_000_000: 1}),
    "digits": b"I" + b"9" * 100_000 + b"\n.",
    "bytes that are not there": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
}


@pytest.mark.parametrize("name", PICKLES)
def test_endless_pickles_are_refused_at_once(name):
    start = time.perf_counter()
    with pytest.raises(So3kError) as refused:
        read_pickle(PICKLES[name], "weights.pkl")
    assert time.perf_counter() - start < AT_ONCE
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def archive(pickled: bytes, **parts: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, part in {"data.pkl": pickled, **parts}.items():
            target.writestr(f"model/{name}", part)
    return file.getvalue()


def module(children: bytes, memo: int) -> bytes:
    """The operations that make a model of other modules, kept under a number."""
    start = b"cso3krates_torch.modules.models\nSO3LR\n)\x81q" + bytes([memo]) + b"}("
    state = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}(" + children
    return start + state + b"uub"


def child(name: str, memo: int) -> bytes:
    return text(name) + b"h" + bytes([memo])


def test_modules_that_contain_each_other_are_refused(tmp_path):
    pairs = [module(child("a", k - 1) + child("b", k - 1) if k else b"", k) + b"0" for k in range(40)]
    path = tmp_path / "endless.model"
    for pickled in (b"\x80\x02" + b"".join(pairs) + b"h\x27.", b"\x80\x02" + module(child("a", 0), 0) + b"."):
        path.write_bytes(archive(pickled))
        with pytest.raises(So3kError, match=r"endless.model has (more than|a tensor whose name)"):
            convert(str(path))


def test_views_do_not_multiply_the_numbers():
    numbers = np.zeros(100_000, dtype="<f4").tobytes()
    storage = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + text("0") + text("cpu")
    view = b"h\x01" + storage + b"J\xa0\x86\x01\x00tQK\x00J\xa0\x86\x01\x00\x85K\x01\x85\x89}tR"
    call = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x010]("
    few = read_torch(archive(call + view * 2 + b"e.", **{"data/0": numbers}), "file")
    assert [len(tensor) for tensor in few] == [100_000] * 2
    with pytest.raises(So3kError, match="more numbers than the file"):
        read_torch(archive(call + view * 1000 + b"e.", **{"data/0": numbers}), "file")


def test_parts_that_claim_more_than_they_hold_are_refused():
    data = bytearray(archive(b"N."))
    at = data.find(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 2**31)
    with pytest.raises(So3kError, match="claim another size"):
        read_torch(bytes(data), "file")


@pytest.mark.parametrize(
    "document",
    [
        "[" * 100_000,
        "[]",
        "{}",
        '{"model": {}, "data": []}',
        '{"model": {"num_layers": ' + "9" * 5000 + "}}",
        '{"model": {}, "data": {"avg_num_neighbors": 3, "energy_shifts": {"-5": 1}}}',
        '{"model": {}, "data": {"avg_num_neighbors": 3, "energy_shifts": {"1": NaN}}}',
    ],
)
def test_damaged_hyperparameters_are_refused(document, tmp_path):
    (tmp_path / "params.pkl").write_bytes(jax_files()[0])
    (tmp_path / "hyperparameters.json").write_text(document)
    with pytest.raises(So3kError, match=r"hyperparameters.json beside params.pkl"):
        convert(str(tmp_path / "params.pkl"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_features", 10**6),
        ("num_radial_basis_fn", 10**9),
        ("num_layers", 10**12),
        ("num_features", "many"),
        ("num_heads", 0),
        ("degrees", [[1]]),
        ("degrees", torch.ones(2)),
        ("r_max", float("nan")),
        ("avg_num_neighbors", 0),
        ("use_charge_embed", [1]),
        ("radial_basis_fn", torch.ones(2)),
        ("cutoff_fn", ["cosine"]),
    ],
)
def test_settings_of_another_kind_or_size_are_refused(setting, value, tmp_path):
    path = tmp_path / "some.model"
    path.write_bytes(torch_file({setting: value}))
    with pytest.raises(So3kError, match=r"^some.model ") as refused:
        build(convert(str(path)))
    assert "\n" not in str(refused.value)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, moved, lost or doubled."""
    at, length = rng.randrange(len(data)), rng.choice([1, 4, 16])
    kind = rng.choice(["flip", "zero", "noise", "lose", "double", "end"])
    part = data[at : at + length]
    new = {
        "flip": bytes([part[0] ^ 1 << rng.randrange(8)]) + part[1:],
        "zero": bytes(len(part)),
        "noise": bytes(rng.randrange(256) for _ in part),
        "lose": b"",
        "double": part * 2,
    }
    return data[:at] if kind == "end" else data[:at] + new[kind] + data[at + length :]


def rewritten(data: bytes, rng: random.Random) -> bytes:
    """A file of torch.save with its pickle damaged, and the check sums right."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        parts = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    return archive(damaged(parts.pop("data.pkl"), rng), **parts)


@pytest.mark.parametrize("kind", ["torch", "pickle", "json"])
def test_damaged_files_are_models_or_refused_in_one_line(kind, tmp_path):
    rng = random.Random(kind)
    params, hyperparameters = jax_files()
    whole = torch_file()
    path = tmp_path / ("some.model" if kind == "torch" else "params.pkl")
    refusals = []
    for _ in range(25):
        if kind == "torch":
            path.write_bytes(rewritten(whole, rng))
        else:
            path.write_bytes(damaged(params, rng) if kind == "pickle" else params)
            document = damaged(hyperparameters, rng) if kind == "json" else hyperparameters
            (tmp_path / "hyperparameters.json").write_bytes(document)
        try:
            build(convert(str(path)))
        except So3kError as error:
            refusals.append(str(error))
    assert len(refusals) > 5
    assert not any("\n" in refusal for refusal in refusals)
