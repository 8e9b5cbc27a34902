"""One spec, three ways in; every mistake names the field, the value and the remedy."""

import pytest

from segbatch.config.base import Spec, merge, read_config, setting
from segbatch.config.job import JobSpec
from segbatch.config.training import TrainSpec
from segbatch.errors import SpecError


def spec(**fields):
    return JobSpec.create(**{"inputs": ["a.tar"], "output": "out", **fields})


def test_defaults_are_the_built_in_model_and_the_dense_crf():
    s = spec()
    assert (s.model, s.refiner, s.prune) == ("deeplabv3plus_mobilenet_v2", "densecrf", None)


def test_one_input_may_be_a_string():
    assert spec(inputs="a.tar").inputs == ["a.tar"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"refinr": "none"}, r"unknown key 'refinr'; did you mean 'refiner'\?"),
        ({"crf": {"theta_alfa": 3}}, r"unknown key 'crf.theta_alfa'; did you mean 'crf.theta_alpha'\?"),
        ({"zzz": 1}, r"unknown key 'zzz'; known keys: address,"),
        ({"batch_size": 0}, r"batch_size: got 0; input should be greater than 0"),
        ({"precision": "fp8"}, r"precision: got \"fp8\"; input should be 'auto', 'fp32' or 'bf16'"),
        ({"crf": {"theta_beta": -1}}, r"crf.theta_beta is -1.0; give a finite standard deviation above 0"),
        ({"crf": {"theta_beta": "x"}}, r"crf.theta_beta: got 'x'; input should be a valid number"),
        ({"crf": {"iterations": 1001}}, r"crf.iterations is 1001; give a whole number from 0 to 1000"),
        ({"crf": {"engine": "cuda"}}, r"crf.engine: got 'cuda'; input should be 'native', 'pydensecrf' or 'torch'"),
        ({"crf": [1]}, r"crf: got \[1\]; input should be a valid dictionary"),
        ({"inputs": []}, r"inputs: got \[\]"),
        ({"max_error_fraction": 2}, r"max_error_fraction: got 2; input should be less than or equal to 1"),
        ({"device": "gpu"}, r"device: got \"gpu\""),
        ({"inputs": ""}, r'inputs: got \[""\]; is empty or blank; check the variable'),
        ({"inputs": ["a.tar", " \t"]}, r'inputs: got \["a.tar", " \\t"\]; is empty or blank'),
        ({"output": "  "}, r'output: got "  "; is empty or blank'),
        ({"weights": ""}, r'weights: got ""; is empty or blank'),
        ({"classes": "\n"}, r'classes: got "\\n"; is empty or blank'),
    ],
)
def test_mistakes_are_explained(fields, message):
    with pytest.raises(SpecError, match=message):
        spec(**fields)


def test_missing_inputs_are_named():
    with pytest.raises(SpecError, match="inputs: required, and not given"):
        JobSpec.create(output="out")


def test_secrets_are_not_shown():
    with pytest.raises(SpecError) as e:
        spec(storage_options=["hunter2"])
    assert "hunter2" not in str(e.value)
    s = spec(storage_options={"secret": "hunter2"}, output="s3://key:hunter2@bucket/out")
    assert "hunter2" not in repr(s.storage_options) or "hunter2" not in str(s.public())
    assert "hunter2" not in str(s.public())
    assert s.public()["output"] == "s3://bucket/out"


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("inputs: [a.tar]\noutput: out\nbatch_size: 2\ncrf: {iterations: 3, theta_beta: 5}\n")
    s = JobSpec.create(**merge(read_config(path), {"batch_size": 4, "crf": {"iterations": 7}, "model": None}))
    assert (s.batch_size, s.crf["iterations"], s.crf["theta_beta"]) == (4, 7, 5.0)
    assert JobSpec.load(path, batch_size=4, crf={"iterations": 7}) == s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inputs: [", "not valid YAML"),
        ("- a\n- b\n", "a configuration is a mapping of keys, such as `inputs:`; found list"),
        ("!!python/object/apply:os.system ['echo']", "not valid YAML"),
        ("", "found NoneType"),
    ],
)
def test_broken_configurations_are_named(tmp_path, text, message):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        read_config(path)


def test_absent_configuration_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"nothere.yaml: no such configuration file"):
        read_config(tmp_path / "nothere.yaml")


def test_a_field_without_an_effect_fails_at_import():
    with pytest.raises(TypeError, match="Careless: sharpness without an effect; define fields by setting"):
        type("Careless", (Spec,), {"__annotations__": {"sharpness": int}, "sharpness": 1})
    with pytest.raises(TypeError, match="effect is 'row'"):
        setting(1, "how sharp", effect="row")


@pytest.mark.parametrize("kind", [JobSpec, TrainSpec])
def test_what_is_stored_follows_from_the_effects(kind):
    stored = kind.create(inputs=["a"], output="out").public()
    assert set(kind.model_fields) - stored.keys() == kind.names("call", "secret")
    assert {"overwrite", "storage_options"} <= kind.names("call", "secret")
