"""The address of a cluster: where it was given, and an end with the reason where no cluster answers."""

from __future__ import annotations

import socket

import pytest

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.ray_backend.address import ClusterAddress


def of(address: str | None = None) -> ClusterAddress | None:
    return ClusterAddress.of(JobSpec.create(inputs=["a"], output="out", address=address))


def test_the_address_is_that_of_the_job_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert of() is None
    assert of("h:6379") == ClusterAddress("h:6379", "address")
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert of() is None
    monkeypatch.setenv("RAY_ADDRESS", "other:6379")
    assert of() == of("auto") == ClusterAddress("other:6379", "RAY_ADDRESS")
    assert of("h:6379") == ClusterAddress("h:6379", "address")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:8265", "8265 is the port of its dashboard"),
        ("10.0.0.5", "(?i)invalid address format|not host:port"),
        ("head:six", "not host:port"),
        ("ray://head", "not host:port"),
        ("no-such-host.invalid:6379", r"no connection to port 6379 of no-such-host.invalid"),
    ],
)
def test_what_is_no_address_is_refused_at_once(address: str, says: str) -> None:
    with pytest.raises(PlanError, match=says) as refused:
        ClusterAddress(address, "address").check()
    assert str(refused.value).startswith(f"address: cannot join the Ray cluster at {address}: ")
    assert "leave out --address to run on this machine" in str(refused.value)


def test_a_variable_whose_cluster_is_gone_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = f"ray://127.0.0.1:{taken.getsockname()[1]}"  # nobody listens
        with pytest.raises(
            PlanError, match=f"^RAY_ADDRESS: cannot join the Ray cluster at {gone}: .*unset RAY_ADDRESS"
        ):
            ClusterAddress(gone, "RAY_ADDRESS").check()


@pytest.mark.long  # Ray waits for 40 seconds
def test_a_server_that_is_no_ray_head_is_refused() -> None:
    with socket.create_server(("0.0.0.0", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(PlanError, match="something listens there, but does not answer as a Ray head"):
            ClusterAddress(address, "address").check()
