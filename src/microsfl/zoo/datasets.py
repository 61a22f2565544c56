"""Data sets by name: the bundled digits, MNIST, and the user's own.

torch is imported only where tensors are made, so that the command line can ask for a shape without paying for it.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import inspect
import pkgutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DatasetNotFound, InvalidSetting, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

IntArray = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

# Known without reading a file: (shape of one sample, classes).
_SHAPES: dict[str, tuple[tuple[int, ...], int]] = {"digits": ((1, 8, 8), 10), "mnist": ((1, 28, 28), 10)}


CLIENT = "client"  # the parameter of a user's function that gets a client's name


class Samples(Protocol):
    """A torch data set of a known length whose items are pairs (x, y)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Data:
    """Both splits of a data set; every sample has the shape `input_shape` and a label in 0 … classes - 1."""

    train: Samples
    test: Samples
    input_shape: tuple[int, ...]
    classes: int


def load_data(name: str, path: str | None, client: str | None = None) -> Data:
    """The data set `name`.

    Args:
        name: `digits` (scikit-learn's 8x8 digits), `mnist`, or `package.module:function`, which is called with `path`
            if it takes a parameter (one with a default: if `path` is given), and returns (train, test), two torch
            data sets of pairs (x, y). A parameter that is called `client` gets the client's name.
        path: for `mnist` the folder of its four IDX files, gzip or plain, or the folder above `MNIST/raw`. None:
            scikit-learn downloads it from openml.org and keeps a copy (no test covers this download).
        client: whose data it is, where each has its own.

    Raises:
        DatasetNotFound: when the files are not there or cannot be downloaded.
        InvalidSetting: for an unknown name, a damaged file, or a function that returns something else.
    """
    if name == "digits":
        return _digits()
    if name == "mnist":
        return _mnist(Path(path)) if path is not None else _mnist_downloaded()
    if ":" in name:
        return _own(name, path, client)
    raise InvalidSetting(
        f"data.dataset: '{name}' is unknown.{did_you_mean(name, _SHAPES)} Or name your own as "
        "'package.module:function'."
    )


def takes_client(name: str) -> bool:
    """Whether the data set depends on whose it is: a function of the user's with a parameter `client`."""
    return ":" in name and CLIENT in inspect.signature(_imported(name)).parameters


def describe(name: str, path: str | None) -> tuple[tuple[int, ...], int]:
    """(input_shape, classes) of `load_data(name, path)`; neither torch nor a file is read for `digits` and `mnist`."""
    if name in _SHAPES:
        return _SHAPES[name]
    data = load_data(name, path)
    return data.input_shape, data.classes


def labels(dataset: Samples) -> IntArray:
    """The label of every sample, int64 [samples], without reading the samples where the data set allows it."""
    from torch.utils.data import TensorDataset

    if isinstance(dataset, TensorDataset):
        return np.asarray(dataset.tensors[1].cpu().numpy(), dtype=np.int64)
    # With a target_transform, as in torchvision, the stored labels are not the ones that the items have.
    if getattr(dataset, "target_transform", None) is None:
        for attribute in ("targets", "labels"):
            stored = np.asarray(getattr(dataset, attribute, ()))
            if stored.shape == (len(dataset),) and np.issubdtype(stored.dtype, np.integer):
                return stored.astype(np.int64)
    return np.array([int(dataset[index][1]) for index in range(len(dataset))], dtype=np.int64)


def take(dataset: Samples, indices: IntArray) -> tuple[Tensor, Tensor]:
    """The samples at `indices`, in that order: x float32 [n, *input_shape] and y int64 [n]."""
    import torch
    from torch.utils.data import TensorDataset, default_collate

    if isinstance(dataset, TensorDataset):
        x, y = dataset[torch.from_numpy(indices)]
    else:
        x, y = default_collate([dataset[int(index)] for index in indices])
    return x.float(), y.long()


def _digits() -> Data:
    """Every fifth sample of each class is for testing: the same split in every run, whatever its seed."""
    table = _digits_table()
    pixels, classes = table[:, :64] / np.float32(16), table[:, 64].astype(np.int64)
    test = _rank_in_class(classes) % 5 == 4
    train_set = _tensors(pixels[~test].reshape(-1, 1, 8, 8), classes[~test])
    return Data(train_set, _tensors(pixels[test].reshape(-1, 1, 8, 8), classes[test]), *_SHAPES["digits"])


def _digits_table() -> npt.NDArray[np.float32]:
    """[1797, 65]: 64 pixels in 0 … 16 and the label."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise InvalidSetting("data.dataset = 'digits' comes with scikit-learn: pip install 'microsfl[run]'.")
    bundled = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    # Reading the file takes 5 ms, importing sklearn.datasets half a second, and every client process would pay it.
    if bundled.is_file():
        with gzip.open(bundled, "rt") as lines:
            return np.loadtxt(lines, delimiter=",", dtype=np.float32)
    # The file's place is private to scikit-learn; where a release moved it, its own loader knows.
    pixels, classes = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    return np.column_stack([pixels, classes]).astype(np.float32)


def _rank_in_class(classes: IntArray) -> IntArray:
    """For each sample, how many earlier ones have its class, int64 [samples]."""
    ranks = np.empty_like(classes)
    for kind in np.unique(classes):
        where = np.flatnonzero(classes == kind)
        ranks[where] = np.arange(where.size)
    return ranks


def _mnist(folder: Path) -> Data:
    train_images, train_labels, test_images, test_labels = (_idx_file(folder, name) for name in MNIST_FILES)
    return Data(
        _images(_read_images(train_images), _read_labels(train_labels), train_labels),
        _images(_read_images(test_images), _read_labels(test_labels), test_labels),
        *_SHAPES["mnist"],
    )


def _idx_file(folder: Path, name: str) -> Path:
    candidates = [place / f"{name}{ending}" for place in (folder, folder / "MNIST" / "raw") for ending in ("", ".gz")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DatasetNotFound(
        f"data.path = '{folder}' has no {name} (nor {name}.gz, nor either under MNIST/raw). Expected are the four "
        f"files {', '.join(MNIST_FILES)}."
    )


def _read_images(file: Path) -> Pixels:
    return _read_idx(file, magic=0x803, header_size=16, sample_shape=(28, 28))


def _read_labels(file: Path) -> Pixels:
    return _read_idx(file, magic=0x801, header_size=8, sample_shape=())


def _read_idx(file: Path, *, magic: int, header_size: int, sample_shape: tuple[int, ...]) -> Pixels:
    """uint8 [samples, *sample_shape] from an IDX file.

    The format (yann.lecun.com/exdb/mnist): big-endian 32-bit magic number, count and further dimensions, then bytes.
    """
    content = _content(file)
    if len(content) < header_size:
        raise InvalidSetting(f"{file} is damaged: it has {len(content)} bytes, fewer than its header.")
    header = struct.unpack(f">{header_size // 4}I", content[:header_size])
    if header[0] != magic:
        raise InvalidSetting(f"{file} is not the IDX file expected: it starts with {header[0]:#x}, not {magic:#x}.")
    if header[2:] != sample_shape:
        raise InvalidSetting(f"{file} has samples of shape {list(header[2:])}, not {list(sample_shape)}.")
    size_bytes = header_size + header[1] * int(np.prod(sample_shape, dtype=np.int64))
    if header[1] == 0 or len(content) != size_bytes:
        raise InvalidSetting(
            f"{file} is damaged: for its {header[1]} samples it should have {size_bytes} bytes, not {len(content)}."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(-1, *sample_shape)


def _content(file: Path) -> bytes:
    try:
        return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidSetting(f"{file} cannot be read, or is damaged: {error}.") from error


def _images(pixels: Pixels, classes: Pixels, where: Path | str) -> Samples:
    if len(pixels) != len(classes):
        raise InvalidSetting(f"{where} has {len(classes)} labels for {len(pixels)} images.")
    if classes.max() > 9:
        raise InvalidSetting(f"{where} has the label {classes.max()}; labels are 0 to 9.")
    return _tensors(pixels.reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255), classes.astype(np.int64))


def _mnist_downloaded() -> Data:
    """Not covered by a test against the real server: the first 60,000 of openml's 70,000 rows are the train set."""
    try:
        fetch = importlib.import_module("sklearn.datasets").fetch_openml
    except ImportError as error:
        raise InvalidSetting("Downloading MNIST needs scikit-learn: pip install 'microsfl[run]'.") from error
    # scikit-learn's default parser needs pandas; the slower one needs nothing more.
    parser = "auto" if importlib.util.find_spec("pandas") else "liac-arff"
    try:
        table = fetch("mnist_784", version=1, as_frame=False, parser=parser)
    except (OSError, ValueError) as error:  # no network, no answer, or openml's own error
        raise DatasetNotFound(
            f"MNIST could not be downloaded ({error}). Set data.path to a folder with its four files "
            f"({', '.join(MNIST_FILES)}, gzip or plain)."
        ) from error
    pixels, classes = table.data.astype(np.uint8), table.target.astype(np.uint8)
    train_set = _images(pixels[:60_000], classes[:60_000], "The downloaded MNIST")
    return Data(train_set, _images(pixels[60_000:], classes[60_000:], "The downloaded MNIST"), *_SHAPES["mnist"])


def _tensors(x: npt.NDArray[np.float32], y: IntArray) -> Samples:
    import torch
    from torch.utils.data import TensorDataset

    return TensorDataset(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y))


def _own(name: str, path: str | None, client: str | None) -> Data:
    function = _imported(name)
    parameters = dict(inspect.signature(function).parameters)
    for_client = parameters.pop(CLIENT, None)
    if for_client is not None and client is None and for_client.default is for_client.empty:
        raise InvalidSetting(
            f"data.dataset: '{name}' takes the name of a client, to give each its own data: set data.partition = 'own'."
        )
    takes_path = any(path is not None or one.default is one.empty for one in parameters.values())
    named = {} if for_client is None or client is None else {CLIENT: client}
    both = function(path, **named) if takes_path else function(**named)
    if not isinstance(both, tuple | list) or len(both) != 2:
        raise InvalidSetting(f"data.dataset: '{name}' returned {_named(both)}; it must return (train, test).")
    train, test = both
    shape, classes = _checked(name, "train", train)
    test_shape, test_classes = _checked(name, "test", test)
    if shape != test_shape:
        raise InvalidSetting(
            f"data.dataset: '{name}' has train samples of shape {list(shape)} and test samples of shape "
            f"{list(test_shape)}; they must be equal."
        )
    return Data(train, test, shape, max(classes, test_classes))


def _imported(name: str) -> Callable[..., Any]:
    try:
        found: Any = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise InvalidSetting(f"data.dataset: '{name}' cannot be imported: {error}.") from error
    if not callable(found):
        raise InvalidSetting(f"data.dataset: '{name}' is {_named(found)}; it must be a function.")
    function: Callable[..., Any] = found
    return function


def _checked(name: str, split: str, dataset: Any) -> tuple[tuple[int, ...], int]:
    """(shape of one sample, largest label + 1) of a data set that the user's function returned."""
    import torch

    what = f"data.dataset: the {split} set of '{name}'"
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")) or len(dataset) == 0:
        raise InvalidSetting(f"{what} is {_named(dataset)}; it must be a torch data set with at least one sample.")
    try:
        x, _ = take(dataset, np.arange(1))
        y = torch.as_tensor(dataset[0][1])
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise InvalidSetting(f"{what} must have pairs (x, y) of a tensor and a whole number: {error}.") from error
    if y.shape != () or y.is_floating_point():
        raise InvalidSetting(
            f"{what} has a label of shape {list(y.shape)} and type {y.dtype}; a label must be one whole number."
        )
    found = labels(dataset)
    if found.min() < 0:
        raise InvalidSetting(f"{what} has the label {found.min()}; labels must be 0, 1, 2, …")
    return tuple(x.shape[1:]), int(found.max()) + 1


def _named(value: object) -> str:
    size = f" of {len(value)} items" if isinstance(value, tuple | list) else ""
    return f"{type(value).__name__}{size}"
