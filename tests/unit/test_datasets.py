"""zoo/datasets.py: the digits, the IDX files, the user's own data, and what is said when they are wrong."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from microsfl.errors import DatasetNotFound, InvalidSetting
from microsfl.spec import DATASETS
from microsfl.zoo import datasets
from microsfl.zoo.datasets import MNIST_FILES, Data, describe, labels, load_data, take

# --- digits


def test_digits_have_their_shape_scale_and_split() -> None:
    data = load_data("digits", None)
    x, y = take(data.train, np.arange(len(data.train)))
    assert (data.input_shape, data.classes) == ((1, 8, 8), 10)
    assert (len(data.train), len(data.test)) == (1442, 355)
    assert (x.dtype, y.dtype, x.shape[1:]) == (torch.float32, torch.int64, (1, 8, 8))
    assert (x.min(), x.max()) == (0.0, 1.0)


def test_digits_are_split_alike_in_each_class() -> None:
    data = load_data("digits", None)
    train, test = np.bincount(labels(data.train)), np.bincount(labels(data.test))
    assert np.abs(test - (train + test) / 5).max() < 1


def test_digits_are_those_of_scikit_learn_and_none_is_in_both_splits() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits", None)
    ours = [
        (*(16 * x).int().flatten().tolist(), int(y)) for part in (data.train, data.test) for x, y in iter_pairs(part)
    ]
    pixels, classes = load_digits(return_X_y=True)
    theirs = [(*row, label) for row, label in zip(pixels.astype(int).tolist(), classes.tolist(), strict=True)]
    assert sorted(ours) == sorted(theirs)


def iter_pairs(dataset: Any) -> Any:
    return (dataset[index] for index in range(len(dataset)))


def test_digits_without_their_file_come_from_scikit_learns_loader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sklearn.datasets  # noqa: F401 - before find_spec is replaced

    direct = datasets._digits_table()
    elsewhere = types.SimpleNamespace(origin=str(tmp_path / "sklearn" / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: elsewhere)
    assert np.array_equal(datasets._digits_table(), direct)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InvalidSetting, match=r"pip install 'microsfl\[run\]'"):
        load_data("digits", None)


def test_describing_imports_no_torch_and_loading_digits_no_scikit_learn() -> None:
    code = (
        "import sys; from microsfl.zoo.datasets import describe, load_data\n"
        "assert describe('digits', None) == ((1, 8, 8), 10) and describe('mnist', None) == ((1, 28, 28), 10)\n"
        "assert not {'torch', 'sklearn'} & set(sys.modules)\n"
        "load_data('digits', None)\n"
        "assert 'torch' in sys.modules and 'sklearn' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- MNIST


def images_file(pixels: np.ndarray[Any, Any], magic: int = 0x803) -> bytes:
    return struct.pack(">4I", magic, *pixels.shape) + pixels.astype(np.uint8).tobytes()


def labels_file(classes: list[int], magic: int = 0x801) -> bytes:
    return struct.pack(">2I", magic, len(classes)) + bytes(classes)


def write_mnist(folder: Path, *, ending: str = "", **replaced: bytes) -> Path:
    """Three train and two test images; `replaced` has other contents by the first two words of a file's name."""
    pixels = np.arange(3 * 784).reshape(3, 28, 28) % 256
    contents = {
        "train_images": images_file(pixels),
        "train_labels": labels_file([4, 0, 9]),
        "t10k_images": images_file(255 - pixels[:2]),
        "t10k_labels": labels_file([1, 2]),
        **replaced,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(MNIST_FILES, contents.values(), strict=True):
        (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending == ".gz" else content)
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("under", ["", "MNIST/raw"])
def test_mnist_is_read_plain_or_gzip_in_the_folder_or_below(tmp_path: Path, ending: str, under: str) -> None:
    write_mnist(tmp_path / under, ending=ending)
    data = load_data("mnist", str(tmp_path))
    assert (len(data.train), len(data.test), data.input_shape, data.classes) == (3, 2, (1, 28, 28), 10)
    assert labels(data.train).tolist() == [4, 0, 9]
    assert labels(data.test).tolist() == [1, 2]
    x, _ = take(data.train, np.array([1]))
    assert x.dtype == torch.float32
    assert torch.equal(x.flatten() * 255, (torch.arange(784, 2 * 784) % 256).float())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train_images", b"", "0 bytes, fewer than its header"),
        ("train_images", images_file(np.zeros((3, 28, 28)))[:-1], "3 samples it should have 2368 bytes, not 2367"),
        ("train_images", images_file(np.zeros((3, 28, 28))) + b"\0", "should have 2368 bytes, not 2369"),
        ("train_images", images_file(np.zeros((3, 28, 28)), magic=0x801), "starts with 0x801, not 0x803"),
        ("train_images", images_file(np.zeros((3, 28, 27))), r"\[28, 27\], not \[28, 28\]"),
        ("train_images", images_file(np.zeros((0, 28, 28))), "damaged: for its 0 samples"),
        ("train_images", images_file(np.zeros((2, 28, 28))), "3 labels for 2 images"),
        ("train_labels", labels_file([4, 0, 9], magic=0x803), "starts with 0x803, not 0x801"),
        ("train_labels", labels_file([4, 0, 10]), "label 10"),
        ("t10k_labels", labels_file([4, 0])[:-1], "should have 10 bytes, not 9"),
        ("t10k_images", b"\x00\x00\x08", "3 bytes, fewer than its header"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    write_mnist(tmp_path, **{name: content})
    with pytest.raises(InvalidSetting, match=says) as caught:
        load_data("mnist", str(tmp_path))
    assert name.split("_")[0] in str(caught.value)


@pytest.mark.parametrize(
    "spoil", [lambda content: content[:-9], lambda content: b"no" + content, lambda content: content[:30] + b"!" * 9]
)
def test_a_damaged_gzip_is_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = write_mnist(tmp_path, ending=".gz") / f"{MNIST_FILES[2]}.gz"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(InvalidSetting, match=rf"{MNIST_FILES[2]}.gz cannot be read, or is damaged"):
        load_data("mnist", str(tmp_path))


def test_a_missing_folder_or_file_names_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="no-such-folder.*" + ", ".join(MNIST_FILES)):
        load_data("mnist", str(tmp_path / "no-such-folder"))
    (write_mnist(tmp_path) / MNIST_FILES[3]).unlink()
    with pytest.raises(DatasetNotFound, match=f"has no {MNIST_FILES[3]}"):
        load_data("mnist", str(tmp_path))


@pytest.mark.skipif("MICROSFL_TEST_MNIST" not in os.environ, reason="MICROSFL_TEST_MNIST names no folder of MNIST")
def test_the_real_mnist() -> None:
    data = load_data("mnist", os.environ["MICROSFL_TEST_MNIST"])
    assert np.bincount(labels(data.train)).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels(data.test)).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    x, _ = take(data.train, np.arange(len(data.train)))
    assert abs(float(x.mean()) - 0.1307) < 1e-4
    assert abs(float(x.std()) - 0.3081) < 1e-4


def test_a_download_without_network_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise URLError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    with pytest.raises(DatasetNotFound, match=r"no route to host.*data\.path"):
        load_data("mnist", None)


def test_a_downloaded_table_is_divided_after_sixty_thousand_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((60_002, 784))
    pixels[60_001] = 255
    table = types.SimpleNamespace(data=pixels, target=np.array(["7"] * 60_000 + ["3", "5"], dtype=object))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *_, **__: table)
    data = load_data("mnist", None)
    assert (len(data.train), labels(data.test).tolist()) == (60_000, [3, 5])
    assert take(data.test, np.array([1]))[0].unique().tolist() == [1.0]


# --- the user's own


class Pairs(Dataset[Any]):
    """A data set of a list of pairs, which counts how many were read."""

    def __init__(self, pairs: list[tuple[Any, Any]], **attributes: Any) -> None:
        self.pairs, self.reads = pairs, 0
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.reads += 1
        return self.pairs[index]


def pairs(*classes: int, shape: tuple[int, ...] = (2, 3), **attributes: Any) -> Pairs:
    return Pairs([(torch.full(shape, float(index)), label) for index, label in enumerate(classes)], **attributes)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("own_data")
    monkeypatch.setitem(sys.modules, "own_data", module)
    return module


def test_own_data_tells_its_shape_and_classes(own: types.ModuleType) -> None:
    own.load = lambda: (pairs(0, 2, 1), pairs(4))
    data = load_data("own_data:load", "ignored")
    assert isinstance(data, Data)
    assert (data.input_shape, data.classes) == ((2, 3), 5)
    assert describe("own_data:load", None) == ((2, 3), 5)


def test_own_data_gets_the_path_when_it_takes_one(own: types.ModuleType) -> None:
    seen: list[str | None] = []

    def load(path: str | None) -> tuple[Pairs, Pairs]:
        seen.append(path)
        return pairs(0, 1), pairs(1)

    own.load = load
    load_data("own_data:load", "here")
    load_data("own_data:load", None)
    assert seen == ["here", None]


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (3, r"returned int; it must return \(train, test\)"),
        ((pairs(0), pairs(0), pairs(0)), "returned tuple of 3 items"),
        ((pairs(0), None), "test set of .* is NoneType"),
        ((pairs(), pairs(0)), "train set of .* at least one sample"),
        ((pairs(0), pairs(0, shape=(3, 2))), r"\[2, 3\] and test samples of shape \[3, 2\]"),
        ((pairs(0), Pairs([(torch.zeros(2, 3), 0.5)])), r"test set .*label of shape \[\] and type torch.float"),
        ((pairs(0), Pairs([(torch.zeros(2, 3), torch.tensor([0, 1]))])), r"label of shape \[2\]"),
        ((pairs(0, -1), pairs(0)), "the label -1"),
        ((Pairs([("a picture", object())]), pairs(0)), r"train set of .* must have pairs \(x, y\)"),
        ((TensorDataset(torch.zeros(4, 2)), pairs(0)), r"train set of .* must have pairs \(x, y\)"),
        (({"x": 1}, pairs(0)), r"train set of .* must have pairs \(x, y\)"),
    ],
)
def test_what_is_wrong_with_own_data_is_said(own: types.ModuleType, returned: Any, says: str) -> None:
    own.load = lambda: returned
    with pytest.raises(InvalidSetting, match=says):
        load_data("own_data:load", None)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_package_here:load", "cannot be imported: No module named"),
        ("own_data:missing", "cannot be imported: .*missing"),
        ("own_data:number", "is int; it must be a function"),
        ("digit", r"'digit' is unknown. Did you mean 'digits'\?"),
    ],
)
def test_what_is_wrong_with_the_name_is_said(own: types.ModuleType, name: str, says: str) -> None:
    own.number = 3
    with pytest.raises(InvalidSetting, match=says):
        load_data(name, None)


def test_every_data_set_of_the_specification_is_described_as_it_loads(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for name in DATASETS:
        data = load_data(name, str(tmp_path))
        assert describe(name, str(tmp_path)) == (data.input_shape, data.classes)


# --- labels and take


def test_labels_and_take_agree_on_every_kind_of_data_set() -> None:
    x, classes = torch.arange(18.0).reshape(3, 2, 3), torch.tensor([2, 0, 1])
    listed = [(x[index], int(classes[index])) for index in range(3)]
    kinds = [TensorDataset(x, classes), Pairs(listed), Pairs(listed, targets=[2, 0, 1]), Pairs(listed, labels=classes)]
    for dataset in kinds:
        assert labels(dataset).tolist() == [2, 0, 1]
        assert labels(dataset).dtype == np.int64
        taken_x, taken_y = take(dataset, np.array([2, 0]))
        assert torch.equal(taken_x, x[[2, 0]])
        assert (taken_y.tolist(), taken_x.dtype, taken_y.dtype) == ([1, 2], torch.float32, torch.int64)


@pytest.mark.parametrize("attributes", [{"targets": [1, 0]}, {"labels": np.array([1, 0])}])
def test_stored_labels_spare_reading_the_samples(attributes: dict[str, Any]) -> None:
    dataset = pairs(1, 0, **attributes)
    assert labels(dataset).tolist() == [1, 0]
    assert dataset.reads == 0


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": [9, 9], "target_transform": abs},
        {"labels": ["cat", "dog"]},
        {"targets": [9]},
        {"targets": [[9], [9]]},
        {"targets": None},
    ],
)
def test_stored_labels_that_are_not_the_items_labels_are_not_used(attributes: dict[str, Any]) -> None:
    assert labels(pairs(1, 0, **attributes)).tolist() == [1, 0]


def test_take_makes_floats_of_bytes_and_doubles() -> None:
    for dtype in (torch.uint8, torch.float64):
        x: Tensor = take(TensorDataset(torch.ones(2, 3, dtype=dtype), torch.tensor([0, 1])), np.arange(2))[0]
        assert x.dtype == torch.float32
