"""The Kubernetes manifests: strictly by KubeRay's own schemas, and by what our job needs."""

from __future__ import annotations

import copy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from segbatch.config.job import JobSpec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kuberay"


def manifests() -> list[dict[str, Any]]:
    return [doc for path in sorted(FOLDER.glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [m for m in manifests() if m["kind"] == kind]
    return found


def cluster_specs() -> dict[str, dict[str, Any]]:
    return {
        "RayJob": of_kind("RayJob")["spec"]["rayClusterSpec"],
        "RayCronJob": of_kind("RayCronJob")["spec"]["jobTemplate"]["rayClusterSpec"],
        "RayCluster": of_kind("RayCluster")["spec"],
    }


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, spec in cluster_specs().items():
        yield f"{kind} head", spec["headGroupSpec"]["template"]["spec"]
        for group in spec["workerGroupSpecs"]:
            yield f"{kind} {group['groupName']}", group["template"]["spec"]
    yield "CronJob", of_kind("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def strict(schema: Any) -> Any:
    """The schema with every object closed that names its properties, as the API server prunes what it does not know."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {k: strict(v) for k, v in schema.items()}
    open_ended = closed.get("additionalProperties") or closed.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object" and not open_ended:
        closed["additionalProperties"] = False
    return closed


@pytest.fixture(scope="module")
def validators(data: Path) -> dict[str, Draft202012Validator]:
    """By kind, from the custom resource definitions of KubeRay."""
    found = {}
    for path in (data / "kuberay").glob("*.yaml"):
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
        (v1,) = [v for v in definition["versions"] if v["name"] == "v1"]
        schema = strict(v1["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        found[definition["names"]["kind"]] = Draft202012Validator(schema)
    return found


@pytest.mark.data
@pytest.mark.parametrize("kind", ["RayJob", "RayCronJob", "RayCluster"])
def test_kuberay_accepts_it(validators: dict[str, Draft202012Validator], kind: str) -> None:
    problems = [f"{e.json_path}: {e.message}" for e in validators[kind].iter_errors(of_kind(kind))]
    assert not problems


@pytest.mark.data
@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayJob", "spec.entrypoints", "misspelt"),
        ("RayJob", "spec.backoffLimit", "two"),
        ("RayJob", "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.resource", {}),
        ("RayCronJob", "spec.concurrencyPolicy", "Forbid"),
        ("RayCluster", "spec.authOptions.mode", "password"),
    ],
)
def test_kuberay_refuses_a_broken_copy(
    validators: dict[str, Draft202012Validator], kind: str, path: str, value: Any
) -> None:
    broken: Any = copy.deepcopy(of_kind(kind))
    *steps, last = path.split(".")
    inner = broken
    for step in steps:
        inner = inner[int(step) if isinstance(inner, list) else step]
    inner[last] = value
    assert list(validators[kind].iter_errors(broken))


def test_one_cluster_in_three_manifests() -> None:
    specs = cluster_specs()
    assert specs["RayJob"] == specs["RayCronJob"] == specs["RayCluster"]
    groups = {g["groupName"]: g for g in specs["RayJob"]["workerGroupSpecs"]}
    assert groups.keys() == {"gpu", "cpu"}
    for group in groups.values():
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    limits = groups["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(limits["nvidia.com/gpu"]) == 1
    assert specs["RayJob"]["authOptions"] == {"mode": "token"}


def test_pods_have_images_resources_and_their_volumes() -> None:
    images = set()
    for where, pod in pods():
        volumes = {v["name"]: v for v in pod.get("volumes", [])}
        for container in pod["containers"]:
            images.add(container["image"])
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, where
            assert "memory" in container["resources"]["limits"], where
            assert {m["name"] for m in container.get("volumeMounts", [])} <= volumes.keys(), where
            for variable in container.get("env", []):
                assert "value" in variable or "secretKeyRef" in variable["valueFrom"], where
                assert not any(word in variable["name"] for word in ("SECRET", "PASSWORD")), where
    assert len(images) == 1


def test_entrypoints_exist_and_their_configuration_is_a_job() -> None:
    template = of_kind("RayCronJob")["spec"]["jobTemplate"]
    submit = of_kind("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    assert submit["command"] == ["ray", "job", "submit", "--"]
    assert shlex.split(template["entrypoint"]) == submit["args"]
    python, repeat, script, flag, config = shlex.split(of_kind("RayJob")["spec"]["entrypoint"])
    assert (python, flag) == ("python", "--config")
    *others, nightly, nights = submit["args"]
    assert others == [python, repeat]
    for name in (script, nightly):
        assert (ROOT / repeat.removeprefix("/opt/segbatch/")).with_name(name).is_file()
    head = cluster_specs()["RayJob"]["headGroupSpec"]["template"]["spec"]
    (mount,) = head["containers"][0]["volumeMounts"]
    folder, name = config.rsplit("/", 1)
    assert mount["mountPath"] == folder
    assert head["volumes"][0]["configMap"]["name"] == of_kind("ConfigMap")["metadata"]["name"]
    files = of_kind("ConfigMap")["data"]
    assert JobSpec.create(**yaml.safe_load(files[name])).output == "s3://BUCKET/masks"
    assert nights == f"{folder}/nightly.yaml"
    for name in ("job.yaml", "nightly.yaml"):
        assert yaml.safe_load(files[name]) == yaml.safe_load((ROOT / "deploy" / name).read_text())


def test_no_exit_code_starts_another_cluster() -> None:
    assert of_kind("RayJob")["spec"]["backoffLimit"] == 0
    assert of_kind("RayCronJob")["spec"]["jobTemplate"]["backoffLimit"] == 0
    job = of_kind("CronJob")["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    codes = rule["onExitCodes"]
    assert (rule["action"], codes["operator"], codes["values"]) == ("FailJob", "In", [1, 2, 3, 4, 5])
    assert codes["containerName"] in [container["name"] for container in pod["containers"]]
    assert pod["restartPolicy"] == "Never", "a podFailurePolicy needs it"


@pytest.mark.parametrize(
    ("codes", "last"),
    [([0], 0), ([2], 2), ([3], 3), ([4], 4), ([5], 5), ([143], 143), ([1, 0], 0), ([1, 3], 3), ([-9, 1, 1], 1)],
)
def test_a_job_is_repeated_where_that_may_help(tmp_path: Path, codes: list[int], last: int) -> None:
    """The script of each attempt ends with the next of ``codes``."""
    repeat = tmp_path / "repeat.py"
    repeat.write_text((ROOT / "jobs" / "repeat.py").read_text().replace("(60, 600)", "(0, 0)"))
    (tmp_path / "codes").write_text(" ".join(map(str, codes)))
    (tmp_path / "job.py").write_text(
        "import os, sys, pathlib\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "code, *others = path.read_text().split()\n"
        "path.write_text(' '.join(others))\n"
        "os.kill(os.getpid(), 9) if code == '-9' else sys.exit(int(code))\n"
    )
    done = subprocess.run([sys.executable, str(repeat), "job.py", str(tmp_path / "codes")])
    assert (done.returncode, (tmp_path / "codes").read_text()) == (last, "")


def test_nights_do_not_overlap() -> None:
    night = of_kind("RayCronJob")["spec"]
    minute, hour, *rest = night["schedule"].split()
    assert minute.isdigit()
    assert hour.isdigit()
    assert rest == ["*", "*", "*"]
    template = night["jobTemplate"]
    assert template["activeDeadlineSeconds"] < 24 * 3600
    assert template["shutdownAfterJobFinishes"]
    cron = of_kind("CronJob")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    cluster = of_kind("RayCluster")["metadata"]["name"]
    env = {e["name"]: e for e in cron["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["RAY_API_SERVER_ADDRESS"]["value"] == f"http://{cluster}-head-svc:8265"
    assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster, "key": "auth_token"}
