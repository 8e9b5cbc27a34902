"""The configurations that ``init`` writes are those that ``run`` and ``nightly`` read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from segbatch.cli.init import job_template, nightly_template
from segbatch.config.crf_mapping import CRF_FIELDS
from segbatch.config.job import JobSpec
from segbatch.config.nightly import NightlySpec
from tests.cli.conftest import Command
from tests.corpus import photographs, write_folder


def uncommented(template: str) -> dict[str, object]:
    """The mapping in a template whose settings are all given, as somebody gives them: without their first #."""
    loaded = yaml.safe_load(re.sub(r"^#(?! )|^#(?=  \S)", "", template, flags=re.MULTILINE))
    assert isinstance(loaded, dict)
    return loaded


def test_a_template_has_every_setting_and_its_default() -> None:
    given = yaml.safe_load(job_template())
    assert given == {"inputs": ["photos/"], "output": "masks"}
    everything = uncommented(job_template())
    assert everything.keys() == JobSpec.model_fields.keys() - {"overwrite", "retry_errors"}
    assert everything.pop("crf") == {name: field.default for name, field in CRF_FIELDS.items()}
    assert JobSpec.create(**everything) == JobSpec.create(**given)
    given = yaml.safe_load(nightly_template())
    assert given.keys() == {"state", "datasets"}
    everything = uncommented(nightly_template())
    assert everything.keys() == NightlySpec.model_fields.keys()
    assert everything.pop("webhook")["when"] == "always"  # type: ignore[index]
    assert NightlySpec.create(**everything) == NightlySpec.create(**given)


@pytest.mark.parametrize("template", [job_template(), nightly_template()])
def test_each_setting_of_a_template_is_explained(template: str) -> None:
    lines = template.splitlines()
    for place, line in enumerate(lines):
        if re.match(r"#?\w+:|#  \w+:", line):
            assert re.match(r"# \w|#   # .", lines[place - 1]), line
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(("kind", "run"), [("job", ["run", "--config"]), ("nightly", ["nightly"])])
def test_a_file_that_is_written_and_filled_runs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, run: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, _ = command("init", kind)
    assert code == 0
    assert text == f"edit {kind}.yaml; next: segbatch {' '.join(run)} {kind}.yaml --dry-run\n"
    write_folder(tmp_path / "photos", photographs(2, side=24))
    config = Path(f"{kind}.yaml")
    code, _, error = command("init", kind)
    assert (code, error) == (2, f"error: {kind}.yaml exists, and init replaces no file; give another FILE\n")
    config.write_text(
        config.read_text().replace("#device: auto", "device: cpu").replace("#job: {}", "job: {model: 'null'}")
    )
    code, text, error = command(*run, config, "--dry-run")
    assert code == 0, error
    assert "masks" in text
    assert not Path("masks").exists()


def test_a_template_is_printed_or_written_where_it_is_asked_for(command: Command, tmp_path: Path) -> None:
    assert command("init", "job", "-")[1] == job_template()
    assert command("init", "nightly", tmp_path / "my night.yaml")[0] == 0
    assert (tmp_path / "my night.yaml").read_text() == nightly_template()
    code, _, error = command("init", "my job.yaml")
    assert (code, "give job or nightly first, such as `segbatch init job 'my job.yaml'`" in error) == (2, True)
    code, _, error = command("init", "job", tmp_path / "absent" / "job.yaml")
    assert (code, "cannot be written: No such file or directory" in error) == (2, True)
