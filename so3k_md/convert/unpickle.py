"""Reads pickles of other programs as plain data, without running their code.

A pickle is a program: it names functions and calls them. Here each allowed name stands for a `Record`, which
stores the arguments of its call and does nothing else; tensors are then made from records with a known
meaning. A name outside the lists below is refused. A small pickle can represent more values than fit into
memory, by repeated references to one value; `bounds` limits size, depth and number of the values.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from so3k_md.convert.bounds import (
    COPIES,
    MAX_BYTES,
    MAX_NAME,
    MAX_OPERATIONS,
    Count,
    brief,
    check_key,
    check_size,
)
from so3k_md.errors import So3kError

# Modules whose classes may appear, as records.
CLASSES = (
    "so3krates_torch.",
    "torch.nn.modules.",
    "torch.nn.parameter.",
    "__torch__.so3k_md.",
    "__torch__.torch.nn.",
)

DTYPES = {
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float": torch.float32,
    "Double": torch.float64,
    "Byte": torch.uint8,
    "Int": torch.int32,
    "Long": torch.int64,
    "Bool": torch.bool,
}
STORAGES = {f"torch.{kind}Storage": dtype for kind, dtype in DTYPES.items()}
ARRAY_TYPES = {"f4": torch.float32, "f8": torch.float64, "i4": torch.int32, "i8": torch.int64}
ARRAYS = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
BUFFERS = {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
LISTS = {f"torch.jit._pickle.build_{kind}list" for kind in ("int", "double", "bool", "tensor")}
CONTAINERS = {
    f"{module}.{kind.__name__}": kind for module in ("builtins", "__builtin__") for kind in (set, list, dict)
}
NAMES = {
    *STORAGES,
    *map(str, DTYPES.values()),
    *ARRAYS,
    *BUFFERS,
    *CONTAINERS,
    *LISTS,
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.device",
    "collections.OrderedDict",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
}

# Operations that hash, and which of the values above the mark are the keys.
HASHING = {
    pickle.SETITEM[0]: slice(-2, -1),
    pickle.SETITEMS[0]: slice(None, None, 2),
    pickle.DICT[0]: slice(None, None, 2),
    pickle.ADDITEMS[0]: slice(None),
    pickle.FROZENSET[0]: slice(None),
}


class Record:
    """A call in a pickle: the name, the arguments, and the state and items that the pickle set afterwards."""

    __slots__ = ("args", "state", "items")
    name = ""

    args: Any
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *args: Any) -> "Record":
        """A record with its arguments; pickles call classes by `__new__` alone."""
        record = super().__new__(cls)
        record.args, record.state, record.items = args, None, {}
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value


class Storage(NamedTuple):
    """The numbers of one or several tensors, stored in a file of the archive."""

    key: str
    dtype: torch.dtype
    size: int


def read_torch(data: bytes, where: str) -> Any:
    """The content of a file of torch.save: plain values, tensors, and records of third-party classes.

    Args:
        data: content of the file.
        where: name of the file in messages.

    Raises:
        So3kError: truncated, of another format, or in need of a name that is not read as data.
    """
    check_size(len(data), where)
    with _one_line_errors(where), zipfile.ZipFile(io.BytesIO(data)) as archive:
        main = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if main is None:
            raise So3kError("it has no data.pkl, so torch.save did not write it")
        folder = main.removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise So3kError("its parts are compressed, which torch.save never does")
        if any(entry.file_size != entry.compress_size for entry in archive.infolist()):
            raise So3kError("its parts claim another size than they have")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise So3kError("its numbers are not little-endian")
        pickled = _records(archive.read(main))
        return _Plain(lambda key: archive.read(f"{folder}data/{key}"), COPIES * len(data))(pickled)


def read_pickle(data: bytes, where: str) -> Any:
    """A pickle of nested containers and numpy arrays, the arrays as tensors.

    Args:
        data: content of the file.
        where: name of the file in messages.

    Raises:
        So3kError: truncated, no pickle, or in need of a name that is not read as data.
    """

    def no_storage(key: str) -> bytes:
        raise So3kError("it refers to storages, which a pickle alone does not have")

    check_size(len(data), where)
    with _one_line_errors(where):
        return _Plain(no_storage, COPIES * len(data))(_records(data))


@contextmanager
def _one_line_errors(where: str) -> Iterator[None]:
    """Turn every exception from hostile or damaged data into an error of one line."""
    try:
        yield
    except So3kError as error:
        raise So3kError(
            f"{where} was not read and nothing of it was run: {error}; name another file"
        ) from None
    except (Exception, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise So3kError(
            f"{where} is truncated or of another kind ({type(error).__name__}: {reason}): fetch it again"
        ) from error


def _records(data: bytes) -> Any:
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if number > MAX_OPERATIONS:
            raise So3kError(f"it takes more than {MAX_OPERATIONS} operations")
        # many large numbers of stored values could have one hash, which makes lookups slow
        if opcode.name.endswith("PUT") and argument is not None and int(argument) > len(data):
            raise So3kError("it numbers its values beyond its size in bytes")
    value = _Reader(data).load()
    Count(Record, ("args", "state", "items"))(value)
    return value


def _with_checked_keys(code: int) -> Callable[[Any], None]:
    """An operation of the reader that uses values on its stack as keys, after a check of these values."""
    operation: Callable[[Any], None] = pickle._Unpickler.dispatch[code]

    def load(reader: Any) -> None:
        for key in reader.stack[HASHING[code]]:
            check_key(key)
        operation(reader)

    return load


# The reader in Python, because that in C hashes keys before they can be checked; hashing deeply nested tuples
# would not end. `pickletools.genops`, above, has compared all lengths with the size of the file.
class _Reader(pickle._Unpickler):
    """Reads a pickle without looking up any name in Python."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))
        self.classes: dict[str, type[Record]] = {}

    dispatch = pickle._Unpickler.dispatch | {code: _with_checked_keys(code) for code in HASHING}

    def find_class(self, module: str, name: str) -> type[Record]:
        """The record class of an allowed name, made for this file alone."""
        full = f"{module}.{name}"
        if len(full) > MAX_NAME or not full.isprintable():
            raise So3kError(f"it calls {brief(full)}, which is not a name")
        if full not in NAMES and not full.startswith(CLASSES):
            raise So3kError(f"it calls {full}, which is not among the names that are read as data")
        if full not in self.classes:
            self.classes[full] = type("Named", (Record,), {"__slots__": (), "name": full})
        return self.classes[full]

    def persistent_load(self, pid: Any) -> Storage:
        """The storage behind one of torch's persistent identifiers."""
        kind, storage, key, _, size = pid
        if kind != "storage" or storage.name not in STORAGES:
            raise So3kError(f"it holds a storage of an unknown kind, {brief(kind)}")
        if type(key) is not str or type(size) is not int or not 0 <= size < MAX_BYTES:
            raise So3kError(f"it holds a storage {brief(key)} of the size {brief(size)}")
        check_key(key)
        return Storage(key, STORAGES[storage.name], size)


class _Plain:
    """Turns what `_Reader` read into containers, tensors, and records of third-party classes."""

    def __init__(self, storage: Callable[[str], bytes], most_bytes: int):
        self.storage = storage
        self.left = most_bytes  # bytes that may still be allocated
        self.done: dict[int, Any] = {}
        self.read: dict[Storage, Tensor] = {}

    def __call__(self, value: Any) -> Any:
        """Convert a value and all that it contains; a name that was not called becomes a string."""
        if isinstance(value, Record):
            if id(value) not in self.done:
                self.done[id(value)] = self.record(value)
            return self.done[id(value)]
        if isinstance(value, type):
            return value.name  # type: ignore[attr-defined]
        if type(value) is dict:
            return {self(key): self(item) for key, item in value.items()}
        if type(value) in (list, tuple, set, frozenset):
            return type(value)([self(item) for item in value])
        return value

    def record(self, record: Record) -> Any:
        """The value of a record, or the record itself where only its state matters."""
        name, args = record.name, record.args
        if name == "torch._utils._rebuild_tensor_v2":
            return self.tensor(*args[:4])
        if name == "torch._utils._rebuild_parameter":
            return self(args[0])
        if name in ARRAYS:
            _, shape, kind, columns, raw = record.state
            return self.array(raw, kind, shape, columns)
        if name in BUFFERS:
            raw, kind, shape, order = args
            return self.array(raw, kind, shape, order == "F")
        if name == "_codecs.encode":
            self.take(len(args[0]))
            return str.encode(args[0], {"latin1": "latin1"}[args[1]])
        if name in LISTS:
            return list(self(args[0]))
        if name in CONTAINERS or name == "collections.OrderedDict":
            kind = CONTAINERS.get(name, dict)
            members = [list(member) for member in map(self, args)]
            for key in (key for member in members for key in member):
                if kind is not list:
                    check_key(key if kind is set else key[0])
            made = kind(*members)
            return made | self(record.items) if kind is dict else made
        self.done[id(record)] = record  # before its state, which may contain the record itself
        record.args, record.state = self(args), self(record.state)
        return record

    def tensor(self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """A tensor from part of a storage, copied."""
        _check_shape(size)
        _check_shape(stride)
        steps = list(zip(size, stride, strict=True))
        last = offset + sum((n - 1) * step for n, step in steps)
        if min([offset, *size, *stride]) < 0 or last >= storage.size or math.prod(size) > storage.size:
            raise So3kError(f"a tensor of shape {tuple(size)} reaches beyond its {storage.size} numbers")
        self.take(math.prod(size) * storage.dtype.itemsize)
        if storage not in self.read:
            raw = self.storage(storage.key)
            self.take(len(raw))
            self.read[storage] = _numbers(raw, storage.dtype, storage.size)
        values = self.read[storage]
        return torch.as_strided(values, size, stride, offset).clone(memory_format=torch.contiguous_format)

    def array(self, raw: Any, kind: Record, shape: tuple[int, ...], columns: bool) -> Tensor:
        """A tensor from the bytes of a numpy array, stored by columns or by rows."""
        code, order = kind.args[0], kind.state[1]
        if code not in ARRAY_TYPES or order not in "<|=":
            raise So3kError(f"it holds an array of the type {brief(order)}{brief(code)}")
        _check_shape(shape)
        content = self(raw)
        self.take(len(content))
        values = _numbers(content, ARRAY_TYPES[code], math.prod(shape))
        if columns:
            return values.reshape(shape[::-1]).permute(*reversed(range(len(shape)))).contiguous()
        return values.reshape(shape)

    def take(self, size: int) -> None:
        """Count bytes of memory; refuse more than the limit, a small multiple of the size of the file."""
        self.left -= size
        if self.left < 0:
            raise So3kError("its tensors have more numbers than the file")


def _check_shape(shape: Any) -> None:
    if not isinstance(shape, tuple) or len(shape) > 16 or not all(type(n) is int for n in shape):
        raise So3kError("a tensor has an invalid shape")
    if any(abs(n) >= MAX_BYTES for n in shape):
        raise So3kError("a tensor has more numbers than the file")


def _numbers(raw: bytes, dtype: torch.dtype, size: int) -> Tensor:
    if len(raw) != size * dtype.itemsize:
        raise So3kError(
            f"{size} numbers of {dtype} should have {size * dtype.itemsize} bytes, not {len(raw)}"
        )
    return torch.frombuffer(bytearray(raw), dtype=dtype) if size else torch.empty(0, dtype=dtype)
