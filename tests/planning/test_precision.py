"""``precision: auto``: decided by the hardware of the workers, once, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from segbatch.config.job import JobSpec
from segbatch.errors import ModelError
from segbatch.models.bf16 import cpu_supports_bf16, refuse_emulated_bf16
from segbatch.models.runner import supports_bf16
from segbatch.operations.explain import explain
from segbatch.output.run_record import RunRecord
from segbatch.planning.claim import publish
from segbatch.planning.job import resolve
from segbatch.planning.plan import make_plan
from segbatch.planning.pools import Hardware, plan_pools
from segbatch.planning.stages import segment_config
from tests import here

OF_THIS_CPU = "bf16" if cpu_supports_bf16() else "fp32"
CORES = Hardware(8, 0, 8, 0)
GPUS = Hardware(64, 4, 32, 2)
TO_COME = Hardware(4, 0, 4, 0, elastic=True, max_cpus=64, max_gpus=8, max_node_gpus=4)
EMPTY = Hardware(0, 0, 0, 0, elastic=True, max_cpus=64)


def spec_of(folder: Path, **fields: Any) -> JobSpec:
    return here.spec([f"{folder}/in/a.tar"], folder / "out", **{"precision": "auto", **fields})


@pytest.fixture
def folder(tmp_path: Path, small_corpus: Path) -> Path:
    (tmp_path / "in").symlink_to(small_corpus)
    return tmp_path


@pytest.mark.parametrize(
    ("hardware", "fields", "expected"),
    [
        (GPUS, {}, "bf16"),
        (GPUS, {"device": "cuda"}, "bf16"),
        (GPUS, {"num_gpus": 0.5}, "bf16"),
        (TO_COME, {}, "bf16"),
        (GPUS, {"precision": "fp32"}, "fp32"),
        (GPUS, {"device": "cpu"}, OF_THIS_CPU),
        (TO_COME, {"device": "cpu"}, OF_THIS_CPU),
        (CORES, {}, OF_THIS_CPU),
        (EMPTY, {}, OF_THIS_CPU),
        (CORES, {"precision": "bf16"}, "bf16"),
    ],
)
def test_auto_is_bf16_where_segment_workers_hold_gpus(
    folder: Path, hardware: Hardware, fields: dict[str, str], expected: str
) -> None:
    plan = make_plan(spec_of(folder, **fields)).with_precision(hardware)
    assert plan.job.precision == plan.record.identity["precision"] == expected
    pools = plan_pools(plan.job.spec, hardware, 100)
    if not fields.get("precision"):
        assert (pools.segment_gpus > 0) <= (expected == "bf16")
    assert segment_config(plan.job, pools).device.precision == expected


def test_the_precision_of_an_output_is_kept_on_other_hardware(folder: Path) -> None:
    spec = spec_of(folder)
    for written in ("bf16", "fp32"):
        here.run(spec.model_copy(update={"precision": written, "overwrite": True}))
        for hardware in (CORES, GPUS):
            plan = make_plan(spec).with_precision(hardware)
            assert plan.job.precision == RunRecord.need(plan.output.store).identity["precision"] == written


def test_the_precision_is_undecided_until_the_hardware_is_known(folder: Path) -> None:
    spec = spec_of(folder)
    job = resolve(spec)
    assert job.precision == "auto"
    assert job.with_precision(GPUS).with_precision(CORES).precision == "bf16"
    assert here.run(spec).totals.records == 10
    assert make_plan(spec).job.precision == OF_THIS_CPU


def test_an_undecided_precision_is_not_published(folder: Path) -> None:
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"the precision of the plan is not chosen"):
            publish(make_plan(spec_of(folder, overwrite=overwrite)))
    assert not (folder / "out").exists()


def test_a_dry_run_says_what_auto_stands_for(folder: Path) -> None:
    spec = spec_of(folder, device="cpu")
    assert f", {OF_THIS_CPU} (auto), temperature" in explain(spec).to_text()
    assert ", fp32, temperature" in explain(spec.model_copy(update={"precision": "fp32"})).to_text()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("model name\t: EPYC\nflags\t\t: fpu avx512f avx512_bf16 sha_ni\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_fp16\n", False),
        ("Features\t: fp asimd bf16 sve\n", True),
        ("Features\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_a_cpu_supports_bf16_by_its_flags(tmp_path: Path, lines: str, expected: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{lines}processor\t: 1\nflags\t\t: avx512_bf16\n" if lines else "")
    assert cpu_supports_bf16(cpuinfo) == expected
    assert not cpu_supports_bf16(tmp_path / "missing")


def test_the_rule_for_cpus_is_torchs() -> None:
    capabilities = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "bf16")
    assert cpu_supports_bf16() == supports_bf16("cpu") == any(capabilities.get(name, False) for name in names)


def test_a_gpu_that_only_emulates_bf16_stops_the_job_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        refuse_emulated_bf16("cpu")
        if native:
            refuse_emulated_bf16("cuda")
    with pytest.raises(ModelError, match=r"Tesla T4 only emulates bf16; give --precision fp32, with --overwrite if"):
        refuse_emulated_bf16("cuda")


def test_only_auto_refuses_a_gpu_that_emulates_bf16(folder: Path) -> None:
    for precision, refuses in (("auto", True), ("bf16", False), ("fp32", False)):
        spec = spec_of(folder, precision=precision)
        job = resolve(spec).with_precision(GPUS)
        assert segment_config(job, plan_pools(spec, GPUS, 100)).refuses_emulated_bf16 == refuses
