"""Pairs of image and mask for PyTorch, in this process and in those of a DataLoader."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import segbatch
from segbatch.codecs.decode import decode
from segbatch.errors import SourceError
from segbatch.results.dataset import MaskDataset
from tests import here
from tests.corpus import encode, photograph, photographs, write_folder, write_tar


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two tars, a folder with an image that EXIF rotates and one that cannot be decoded, and their output."""
    samples = photographs(10, side=48)
    write_tar(tmp_path / "in/a.tar", samples[:4])
    write_tar(tmp_path / "in/b.tar", samples[4:8])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = ("turned.jpg", encode(photograph(3, 48), exif=exif))
    write_folder(tmp_path / "in", [*samples[8:], turned, ("page.jpg", b"<html>gone</html>")])
    inputs = [f"{tmp_path}/in/*.tar", f"{tmp_path}/in/*.jpg"]
    here.run(here.spec(inputs, tmp_path / "out"))
    return tmp_path


def expected(corpus: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    dataset = segbatch.open(str(corpus / "out"))
    rows = [row for row in dataset if row.mask is not None]
    data = {original.row.image_id: original.data for original in dataset.images.originals.read(rows)}
    return [(decode(data[row.image_id] or b"", 10**6), np.asarray(row.mask)) for row in rows]


def same(pair: tuple[torch.Tensor, torch.Tensor], wanted: tuple[np.ndarray, np.ndarray]) -> bool:
    image, mask = pair
    assert (image.dtype, mask.dtype) == (torch.uint8, torch.int64)
    return np.array_equal(image.permute(1, 2, 0), wanted[0]) and np.array_equal(mask, wanted[1])


def test_each_mask_is_paired_with_its_image_in_any_order(corpus: Path) -> None:
    wanted = expected(corpus)
    pairs = segbatch.open(str(corpus / "out")).to_torch_dataset()
    assert (len(pairs), pairs.num_errors) == (len(wanted), 1) == (11, 1)
    assert all(same(pair, one) for pair, one in zip(pairs, wanted, strict=True))
    order = [7, 0, 10, 0, -1, 3]
    copied = pickle.loads(pickle.dumps(pairs))
    assert all(same(pair, wanted[i]) for pair, i in zip(copied.__getitems__(order), order, strict=True))
    loaded = [pair for batch in DataLoader(pairs, batch_size=4, collate_fn=list) for pair in batch]
    assert all(same(pair, one) for pair, one in zip(loaded, wanted, strict=True))


def test_a_selection_is_a_dataset_with_the_transform_applied(corpus: Path) -> None:
    masks = segbatch.open(str(corpus / "out"))
    chosen = masks.select(classes=["bright"])
    pairs = chosen.to_torch_dataset(transform=lambda image, mask: (image.shape, mask.unique()))
    assert (len(pairs), pairs.num_errors) == (len(chosen), 0)
    shapes = [(3, row.height, row.width) for row in chosen]
    assert [tuple(shape) for shape, _ in pairs] == shapes
    assert all(2 in classes for _, classes in pairs)


def test_an_image_that_is_gone_is_an_error_that_names_it(corpus: Path) -> None:
    pairs = segbatch.open(str(corpus / "out")).to_torch_dataset()
    (corpus / "in/b.tar").unlink()
    where = [row.image_id.startswith("b.tar") for row in MaskDataset.open(str(corpus / "out")) if row.mask is not None]
    with pytest.raises(SourceError, match=r"b\.tar"):
        pairs[where.index(True)]
    with pytest.raises(SourceError, match="nowhere"):
        segbatch.open(str(corpus / "out"), inputs=[str(corpus / "nowhere")]).to_torch_dataset()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_two_workers_of_a_data_loader_read_every_pair_once(corpus: Path, start: str) -> None:
    wanted = expected(corpus)
    pairs = segbatch.open(str(corpus / "out")).to_torch_dataset()
    loader = DataLoader(pairs, batch_size=3, num_workers=2, collate_fn=list, multiprocessing_context=start)
    loaded = [pair for batch in loader for pair in batch]
    assert len(loaded) == len(wanted)
    assert all(same(pair, one) for pair, one in zip(loaded, wanted, strict=True))
