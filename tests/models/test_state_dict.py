"""Checkpoints as training tools save them: one network's weights under any wrapping, and what is refused."""

from __future__ import annotations

import argparse
import hashlib
import io
import pathlib
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segbatch.errors import ModelError
from segbatch.labels import LabelSet
from segbatch.models import loading, state_dict
from segbatch.models.architecture import Architecture
from segbatch.models.info import DeviceOptions, ModelRequest
from segbatch.models.loading import nearest
from segbatch.models.tiles import Geometry


class Tiny(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))


LABELS = LabelSet.of(("a", "b", "c"))
TINY = Architecture(
    "tiny", "a network", Tiny, "head.weight", Geometry(stride=1, multiple=1, activations=8), labels=LABELS
)


def weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return Tiny(3).state_dict()


PLAIN, OTHER = weights(), weights(1)
EPOCH = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(4, 3, 3, 3)}}, "param_groups": [{"lr": 0.1}]}}


def under(prefix: str, state: dict[str, Tensor] = PLAIN) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def averaged() -> dict[str, Any]:
    network = Tiny(3)
    network.load_state_dict(PLAIN)
    return AveragedModel(network).state_dict()


FORMS: dict[str, Any] = {
    "plain": PLAIN,
    "ordered": OrderedDict(PLAIN),
    "compiled": under("_orig_mod."),
    "compiled within": {key.replace("stem.", "stem._orig_mod."): value for key, value in PLAIN.items()},
    "parallel": under("module."),
    "parallel and compiled": under("module._orig_mod."),
    "fsdp": under("_fsdp_wrapped_module."),
    "a name of one's own": under("my_segmenter.core."),
    "state_dict": {"state_dict": PLAIN, **EPOCH},
    "model_state_dict": {"model_state_dict": under("module."), **EPOCH},
    "net": {"net": PLAIN, "acc": 0.9, "epoch": 1},
    "params": {"params": PLAIN},
    "deepspeed": {"module": under("module."), "optimizer": None, "ds_config": {"zero": 1}, "param_shapes": [{}]},
    "nested": {"state": {"model": {"weights": under("net.")}}},
    "lightning": {
        "epoch": 3,
        "global_step": 99,
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [EPOCH["optimizer"]],
        "lr_schedulers": [],
        "callbacks": {},
        "loops": {"fit_loop": {}},
        "state_dict": {**under("model."), "criterion.weight": torch.ones(3), "val_iou.confmat": torch.zeros(3, 3)},
    },
    "loss beside": {**PLAIN, "loss_fn.weight": torch.ones(3), "train_metrics.total": torch.tensor(1)},
    "ema": {"state_dict": OTHER, "state_dict_ema": PLAIN},
    "ema within": {"model": OTHER, "ema": {"module": PLAIN, "decay": 0.9}},
    "ema prefix": {"state_dict": {**under("model.", OTHER), **under("ema_model.module.")}},
    "ema under two names": {"model": OTHER, "model_ema": PLAIN, "best": {"ema": PLAIN}},
    "swa": {"model": OTHER, "swa_model": averaged()},
    "averaged": averaged(),
    "twice the same": {"model": PLAIN, "state_dict": under("module."), "epoch": 3},
    "without counters": {key: value for key, value in PLAIN.items() if not key.endswith("num_batches_tracked")},
    "timm": {
        "state_dict": PLAIN,
        "args": argparse.Namespace(lr=0.1, path=pathlib.Path("x")),
        "metric": np.float64(0.8),
    },
    "mmseg": {"state_dict": PLAIN, "meta": {"CLASSES": ("a", "b"), "PALETTE": np.zeros((2, 3), np.uint8)}},
}


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def same(state: dict[str, Tensor], expected: dict[str, Tensor] = PLAIN) -> bool:
    keys = {key for key in expected if not key.endswith("num_batches_tracked")}
    return keys <= set(state) <= set(expected) and all(torch.equal(state[key], expected[key]) for key in keys)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_the_same_weights_under_any_wrapping(form: str, zipped: bool) -> None:
    taken = loading.take(TINY, saved(FORMS[form], _use_new_zipfile_serialization=zipped), "w.ckpt")
    assert taken.share == 1
    assert same(taken.state)
    assert (taken.note == "") == (
        form in ("plain", "ordered", "compiled within", "without counters", "fsdp", "compiled")
    )


def test_what_was_taken_is_said() -> None:
    def note(form: str) -> str:
        return loading.take(TINY, saved(FORMS[form]), "w.ckpt").note

    assert note("ema") == "taken from state_dict_ema; averaged over training, not those of state_dict"
    assert note("parallel") == "taken from its outermost mapping under 'module.'"
    assert "not used: loss_fn.weight, train_metrics.total" in note("loss beside")
    for name in ("optimizer_states", "hyper_parameters", "criterion.weight", "val_iou.confmat"):
        assert name in note("lightning")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".th", ".safetensors"])
@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_a_file_is_read_by_its_content(tmp_path: Path, suffix: str, form: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(saved(under("model.")) if form == "torch" else safetensors.torch.save(under("model.")))
    choice = ModelRequest(str(path))
    info = TINY.describe(choice)
    assert info.digest == checkpoint_digest(path.read_bytes())
    assert "under 'model.'" in info.note
    # The normalization is part of the first convolution there.
    assert torch.equal(
        TINY.build(choice, DeviceOptions("cpu")).network.state_dict()["head.weight"], PLAIN["head.weight"]
    )


def checkpoint_digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_single(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({k: v.to(dtype) if v.is_floating_point() else v for k, v in PLAIN.items()}, path)
    state = TINY.build(ModelRequest(str(path)), DeviceOptions("cpu")).network.state_dict()
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}
    torch.testing.assert_close(state["head.weight"], PLAIN["head.weight"], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("names", [("model", "best_model"), ("student", "teacher"), ("ema_a", "ema_b", "model")])
def test_several_networks_that_fit_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="several sets of weights that fit") as e:
        loading.take(TINY, saved({name: weights(seed) for seed, name in enumerate(names)}), "w.pt")
    for part in (*names, "w.pt", "save_file"):
        assert part in str(e.value)


def refusal(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "w.ckpt"
    path.write_bytes(saved(content))
    with pytest.raises(ModelError) as e:
        TINY.describe(ModelRequest(str(path)))
    return str(e.value)


def test_another_network_under_a_prefix_is_refused(tmp_path: Path) -> None:
    said = refusal(
        tmp_path, {"state_dict": under("model.", {k.replace("weight", "heft"): v for k, v in PLAIN.items()})}
    )
    assert "3 missing: stem.0.weight, stem.1.weight, head.weight" in said
    assert "3 unexpected: stem.0.heft, stem.1.heft, head.heft" in said


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    spoiled = {k: v.clone().to(dtype) if v.is_floating_point() else v for k, v in PLAIN.items()}
    spoiled["stem.1.running_var"][2] = value
    assert "NaN or infinity in stem.1.running_var" in refusal(tmp_path, {"model": spoiled})


def test_tables_that_hold_themselves_and_many_tables_cost_little() -> None:
    loop: dict[str, Any] = {"model": PLAIN}
    loop.update({f"again{i}": loop for i in range(100)})
    loop.update({f"part{i}": {"x": torch.ones(1)} for i in range(2000)})
    assert same(loading.take(TINY, saved(loop), "w.pt").state)


@pytest.mark.parametrize("form", ["plain", "parallel", "lightning", "ema", "swa", "deepspeed", "nested"])
def test_without_a_network_the_largest_table_is_taken(form: str) -> None:
    found = state_dict.parse(saved({**FORMS[form], "ema_state": {"decay": torch.ones(1)}}), "w.pt")
    assert same({key: value for key, value in found.items() if key in PLAIN})


def test_nothing_that_holds_tensors(tmp_path: Path) -> None:
    assert "not a state dict" in refusal(tmp_path, {"epoch": 3})
    assert "not a state dict" in refusal(tmp_path, [torch.ones(2)])


def test_the_number_of_classes_and_a_network_that_fits_are_named(tmp_path: Path) -> None:
    def message(call: Callable[[], Any]) -> str:
        with pytest.raises(ModelError) as e:
            call()
        return str(e.value)

    path = tmp_path / "w.pt"
    torch.save(under("module."), path)
    said = message(lambda: state_dict.load_into(Tiny(5), str(path)))
    assert "The final layer has 3 classes, the network is built for 5" in said
    lraspp = "lraspp_mobilenet_v3_large"
    from segbatch import models

    entry = models.entry(lraspp)
    assert isinstance(entry, Architecture)
    whole = {f"model.{k}": torch.zeros(v.shape) for k, v in entry.network(7).state_dict().items()}
    assert nearest({"state_dict": whole}, "tiny") == f"; they fit {lraspp}"
    del whole["model.backbone.0.0.weight"]
    assert f"the nearest is {lraspp}" in nearest(whole, "tiny")


def test_a_network_of_ones_own_is_loaded_under_any_prefix(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(saved(FORMS["lightning"]))
    network = Tiny(3)
    assert "taken from state_dict under 'model.'" in state_dict.load_into(network, str(path))
    assert same(network.state_dict())


class Loss(nn.Module):
    """What a checkpoint would need code for."""


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_named_and_the_remedy_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path, name = tmp_path / "FILE", f"{Loss.__module__}.Loss"
    for content in ({"state_dict": PLAIN, "hyper_parameters": {"loss": Loss()}}, {"model": Tiny(3)}):
        data = saved(content, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match="loading the file would execute code") as e:
            loading.take(TINY, data, "w.ckpt")
        assert name in str(e.value) or f"{Tiny.__module__}.Tiny" in str(e.value)
        path.write_bytes(data)
        command = re.search(r'python -c "(.*)"', str(e.value))
        assert command is not None
        exec(command[1], {})
        assert set(safetensors.torch.load_file(tmp_path / "FILE.safetensors")) == set(PLAIN)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_program_is_named() -> None:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1))), file)
    with pytest.raises(ModelError, match=r"TorchScript program.*state_dict\(\)"):
        state_dict.load(file.getvalue(), "w.pt")
