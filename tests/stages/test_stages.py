"""The stages without Ray: nothing lost, one bad record takes no other with it, pruning changes no mask."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segbatch.codecs import mask_png as png
from segbatch.errors import RecordFailure
from segbatch.labels import LabelSet
from segbatch.records import Chunk, ChunkId, Record, Scores
from segbatch.refiners.none import NoRefiner
from segbatch.refiners.upsample import softmax, upsample
from segbatch.stages.refine import Refine
from segbatch.stages.scoring import coarse_scores
from segbatch.stages.segment import Segment

LABELS = LabelSet.of(["background", "bright", "dark"])


class BrightnessModel:
    """Scores by brightness; breaks on an image whose top left pixel says so."""

    name, labels, stride = "brightness", LABELS, 4

    def __init__(self):
        self.batches = []

    def scores(self, images, image_ids):
        self.batches.append(len(images))
        for image in images:
            if tuple(image[0, 0]) == (255, 0, 0):
                raise ValueError("a red corner")
            if tuple(image[0, 0]) == (0, 255, 0):
                raise MemoryError("a green corner")
        out = []
        for image in images:
            h, w = -(-image.shape[0] // 4), -(-image.shape[1] // 4)
            gray = image.mean(axis=2)[::4, ::4][:h, :w].astype(np.float32) / 16
            scores = np.stack([np.full_like(gray, 8), gray, 16 - gray])
            out.append(scores if tuple(image[0, 0]) != (0, 0, 255) else scores * np.nan)
        return out


def image_bytes(color, size=(17, 13), corner=None):
    image = Image.new("RGB", size, color)
    if corner:
        image.putpixel((0, 0), corner)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def chunk(*data):
    records = [Record(f"s/{i}", "s", i, d) for i, d in enumerate(data)]
    return Chunk(ChunkId("s.00000000.000000", 0, True), records, {"read": 1.0})


def segment(model=None, **options):
    return Segment(model or BrightnessModel(), **{"max_pixels": 10**6, "prune": 1e-3, "keep_images": False, **options})


def run(*data, **options):
    done = Refine(NoRefiner(), LABELS, max_pixels=10**6)(segment(**options)(chunk(*data)))
    assert [r.image_id for r in done.records] == [f"s/{i}" for i in range(len(data))]
    assert set(done.timings) == {"read", "segment", "refine"}
    assert all(r.data is None and r.scores is None for r in done.records)
    return done.records


def test_masks_have_the_images_size_and_say_what_is_counted():
    bright, dark = run(image_bytes("white"), image_bytes("black", (5, 30)))
    mask = png.decode(bright.mask)
    assert mask.shape == (13, 17)
    assert (mask == 1).all()
    assert (bright.height, bright.width) == (13, 17)
    assert [(c.class_id, c.pixels, c.fraction) for c in bright.classes] == [(1, 13 * 17, 1.0)]
    assert png.decode(dark.mask).shape == (30, 5)
    assert dark.classes[0].class_id == 2
    assert Image.open(io.BytesIO(bright.mask)).getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


def test_one_bad_record_takes_no_other_with_it():
    model = BrightnessModel()
    good = image_bytes("white")
    records = run(
        good, b"", image_bytes("white", corner=(255, 0, 0)), None, image_bytes("white", corner=(0, 0, 255)), good,
        b"<html>", image_bytes("white", corner=(0, 255, 0)), image_bytes("white", (2000, 1000)),
        model=model,
    )  # fmt: skip
    errors = [None if r.error is None else (r.error.stage, r.error.type) for r in records]
    assert errors == [
        None,
        ("decode", "EmptyImage"),
        ("segment", "ValueError"),
        ("read", "MissingBytes"),
        ("segment", "NonFiniteScores"),
        None,
        ("decode", "UnknownFormat"),
        ("segment", "OutOfMemory"),
        ("decode", "DecompressionBomb"),
    ]
    assert "a red corner" in records[2].error.message
    assert records[0].mask == records[5].mask
    assert all((r.mask is None) == (r.error is not None) for r in records)


def test_an_error_of_an_earlier_stage_passes_through():
    failed = Record("s/0", "s", 0).failed("read", "MissingObject", "gone")
    done = Refine(NoRefiner(), LABELS, max_pixels=1)(segment()(Chunk(chunk().id, [failed])))
    assert done.records == [failed]


def test_a_lost_gpu_context_stops_the_worker_instead_of_failing_every_image():
    class Lost(BrightnessModel):
        def scores(self, images, image_ids):
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="CUDA error"):
        segment(Lost())(chunk(image_bytes("white")))


def test_images_travel_on_only_if_the_refiner_needs_them():
    data = image_bytes("white")
    assert segment(keep_images=False)(chunk(data)).records[0].data is None
    assert segment(keep_images=True)(chunk(data)).records[0].data == data


def test_a_failing_refiner_is_an_error_row():
    class Broken:
        needs_image = False

        def refine(self, image, scores):
            raise RecordFailure("refine", "Broken", "no")

    (failed,) = Refine(Broken(), LABELS, max_pixels=10**6)(segment()(chunk(image_bytes("white")))).records
    assert (failed.error.stage, failed.error.type, failed.height) == ("refine", "Broken", 13)


def test_large_images_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("segbatch.stages.segment._WINDOW_PIXELS", 3 * 13 * 17)
    model = BrightnessModel()
    records = run(*[image_bytes("white")] * 8, model=model)
    assert model.batches == [3, 3, 2]
    assert len({r.mask for r in records}) == 1


logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    elements=st.floats(-30, 30, width=16),
)


@settings(max_examples=200, deadline=None)
@given(logits, st.sampled_from([1, 2, 4, 8]))
def test_leaving_out_classes_that_cannot_win_changes_no_pixel(scores, stride):
    height, width = scores.shape[1] * stride, scores.shape[2] * stride
    full = upsample(Scores(scores, np.arange(len(scores)), height, width, stride))
    kept = coarse_scores(scores, height, width, stride, prune=0.4)
    mask, marginal = NoRefiner().refine(None, kept)
    ordered = np.sort(full, axis=0)
    clear = ordered[-1] - ordered[-2] > 0.2 if len(full) > 1 else np.ones(full.shape[1:], bool)
    np.testing.assert_array_equal(mask[clear], full.argmax(axis=0)[clear])
    everything = coarse_scores(scores, height, width, stride, prune=0)
    assert everything.class_ids.tolist() == list(range(len(scores)))
    assert (marginal <= 1 + 1e-6).all()


def test_upsampling_is_that_of_torch_on_the_same_grid():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    for stride in (1, 2, 4, 8, 16):
        mine = upsample(Scores(values, np.arange(3), 5 * stride, 7 * stride, stride))
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(values)[None], scale_factor=stride, mode="bilinear", align_corners=False
        )[0]
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-5)


def test_scores_of_an_odd_size_are_cut_from_the_same_grid():
    values = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    whole = upsample(Scores(values, np.arange(2), 16, 16, 4))
    part = upsample(Scores(values, np.arange(2), 13, 14, 4))
    np.testing.assert_array_equal(part, whole[:, :13, :14])


def test_softmax_sums_to_one():
    p = softmax(np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32) * 50)
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-6)


def test_more_than_256_classes_are_written_in_16_bits():
    mask = np.array([[0, 300], [65535, 7]], np.int32)
    np.testing.assert_array_equal(png.decode(png.encode(mask, b"", 65536)), mask)


@pytest.mark.parametrize(("num_classes", "entries"), [(2, 17), (21, 21), (256, 256)])
def test_the_palette_of_a_mask_has_the_entries_of_the_classes(num_classes: int, entries: int) -> None:
    mask = np.arange(num_classes).reshape(1, -1)
    palette = LabelSet.of([str(i) for i in range(num_classes)]).palette()
    data = png.encode(mask, palette, num_classes)
    np.testing.assert_array_equal(png.decode(data), mask)
    image = Image.open(io.BytesIO(data))
    assert image.getpalette() == list(palette[: 3 * entries])
    assert data[24] == 8  # bits per pixel, also of few classes
