"""The address of a Ray cluster: where it was given, and whether a cluster answers there."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

from ray._private import services
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.storage.failures import brief
from segbatch.text import redact

_VARIABLE = "RAY_ADDRESS"
_CLIENT = "ray://"
_CONNECT_SECONDS = 5.0
# Waits between attempts to connect, for a head that is being restarted.
_WAITS_SECONDS = (1.0, 3.0)


@dataclass(frozen=True)
class ClusterAddress:
    """The address of the cluster that a job names.

    Attributes:
        address: ``auto``, ``host:port``, or ``ray://host:port``.
        origin: The setting that it comes from: ``address`` or ``RAY_ADDRESS``.
    """

    address: str
    origin: str

    @staticmethod
    def of(spec: JobSpec) -> ClusterAddress | None:
        """Return the address that a job names, or that RAY_ADDRESS names for it; None for this machine."""
        variable = os.environ.get(_VARIABLE, "")
        if variable and spec.address in (None, "auto"):  # Ray replaces auto by the variable
            return ClusterAddress(variable, _VARIABLE)
        return None if spec.address is None else ClusterAddress(spec.address, "address")

    @property
    def is_client(self) -> bool:
        """Whether it is that of a server for Ray clients."""
        return self.address.startswith(_CLIENT)

    def check(self) -> None:
        """Check within a minute that a Ray cluster answers; ``ray.init`` itself may wait indefinitely.

        Raises:
            PlanError: No cluster answers, or what is given is not an address.
        """
        if self.address == "local":  # Ray starts one
            return
        try:
            located = self._located()
            host, port = self._host_and_port(located)
        except (ConnectionError, ValueError) as e:
            raise self.refused(brief(e).partition(". Please")[0]) from None
        self._connect(host, port)
        if self.is_client:  # whose own attempts to connect end after half a minute
            return
        try:
            GcsClient(address=located)
        except Exception as e:  # Ray failures: of several types
            raise self.refused(f"something listens there, but does not answer as a Ray head: {brief(e)}", e) from e

    def refused(self, reason: str, error: Exception | None = None) -> PlanError:
        """Return the error for a cluster that cannot be joined, with the remedies."""
        failed = f"{self.origin}: cannot join the Ray cluster at {redact(self.address)}: {reason.rstrip('.')}"
        text = str(error or "").lower()
        if any(word in text for word in ("401", "unauthenticated", "unauthorized", "token")):
            return PlanError(
                f"{failed}; it asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
                "RAY_AUTH_MODE=disabled, for the head and for every client"
            )
        remedy = f"unset {_VARIABLE}" if self.origin == _VARIABLE else "leave out --address"
        return PlanError(
            f"{failed}; {remedy} to run on this machine, or start the head and give its host:port, as "
            "`ray start --head` prints it"
        )

    def _located(self) -> str:
        """Return the address with ``auto`` and ``localhost`` resolved as Ray does. Raises ``ConnectionError``."""
        if self.is_client:
            return self.address
        if "://" in self.address:
            raise ValueError("not the address of a Ray head, which is host:port; 8265 is the port of its dashboard")
        return str(services.canonicalize_bootstrap_address_or_die(self.address))

    def _host_and_port(self, located: str) -> tuple[str, int]:
        host, _, port = located.removeprefix(_CLIENT).partition("/")[0].rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError("not host:port")
        return host.strip("[]"), int(port)

    def _connect(self, host: str, port: int) -> None:
        for wait in (*_WAITS_SECONDS, None):
            try:
                socket.create_connection((host, port), _CONNECT_SECONDS).close()
                return
            except OSError as e:
                if wait is None or isinstance(e, socket.gaierror):
                    raise self.refused(f"no connection to port {port} of {host} ({brief(e)})") from e
                time.sleep(wait)
