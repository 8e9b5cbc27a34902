"""A real object store for tests: SeaweedFS on this machine, on ports of its own."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import s3fs

WEED = Path(sys.executable).with_name("weed")
_PORTS = ("master", "volume", "filer", "s3")


def free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose number plus 10,000 is too: SeaweedFS takes that for gRPC."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as plain, socket.socket() as grpc:
            plain.bind(("127.0.0.1", 0))
            port = int(plain.getsockname()[1])
            if port > 55_000 or port in found:
                continue
            with suppress(OSError):
                grpc.bind(("127.0.0.1", port + 10_000))
                found.append(port)
    return found


@dataclass
class Seaweed:
    """One server with one user. ``secret`` and ``key`` occur nowhere but in its configuration and its clients'."""

    folder: Path
    key: str = field(default_factory=lambda: f"KEY{secrets.token_hex(8)}")
    secret: str = field(default_factory=lambda: f"SECRET{secrets.token_hex(16)}", repr=False)
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """As any S3 client reads it."""
        return self.credentials() | {"AWS_ENDPOINT_URL": self.endpoint}

    def credentials(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def storage_options(self, endpoint: str | None = None) -> dict[str, Any]:
        """The same in a configuration."""
        where = {"endpoint_url": endpoint or self.endpoint, "region_name": "us-east-1"}
        return {"key": self.key, "secret": self.secret, "client_kwargs": where}

    def client(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(**self.storage_options(), skip_instance_cache=True, use_listings_cache=False)

    def start(self) -> None:
        self.ports = self.ports or dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        user = {
            "name": "test",
            "credentials": [{"accessKey": self.key, "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [user]}))
        port = self.ports
        command = [
            WEED, "-logtostderr=true", "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.electionTimeout=1s",
            "-master.heartbeatInterval=100ms", "-master.volumeSizeLimitMB=1024", "-volume.max=50",
            "-volume.preStopSeconds=1", "-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.config={self.folder / 's3.json'}", f"-master.port={port['master']}",
            f"-volume.port={port['volume']}", f"-filer.port={port['filer']}", f"-s3.port={port['s3']}",
        ]  # fmt: skip
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._wait()

    def _wait(self, seconds: float = 60.0) -> None:
        """Until an object can be written and read, which is some seconds after the port is open."""
        end = time.monotonic() + seconds
        while True:
            try:
                fs = self.client()
                if not fs.exists("tests"):
                    fs.mkdir("tests")
                fs.pipe_file("tests/probe", b"x")
                assert fs.cat_file("tests/probe") == b"x"
                return
            except Exception as e:
                assert self.process is not None
                if self.process.poll() is not None or time.monotonic() > end:
                    log = (self.folder / "log").read_text(errors="replace")[-3000:]
                    raise AssertionError(f"SeaweedFS did not start: {e}\n{log}") from e
                time.sleep(0.2)

    def kill(self) -> None:
        """At once: what it holds is thrown away."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None
