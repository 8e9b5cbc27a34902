"""Secrets in URIs: what is shown and stored of each, and that a job over signed URLs leaves none anywhere."""

from __future__ import annotations

import http.server
import json
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.cli import app as cli
from segbatch.config.base import read_config
from segbatch.config.job import JobSpec
from segbatch.config.training import TrainSpec
from segbatch.errors import RecordFailure, SegbatchError, SpecError
from segbatch.logs import JsonFormatter
from segbatch.text import redact, redact_text, without_query
from tests import here
from tests.corpus import encode, photograph, write_tar

HEX = "3f786850e387550fdab836ed7e6dc881de23001b"
BASE64 = "Zx81kQpLw3vT7rYb2NcF6hJd"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2VjcmV0"

REDACTED = {
    # S3, SigV4 and SigV2; CloudFront; Google; Azure; Alibaba, Tencent, nginx, Akamai, Bunny
    "https://h/a.jpg?X-Amz-Algorithm=AWS4&X-Amz-Credential=AK%2F20261101%2Fs3&X-Amz-Date=20261101T000000Z"
    "&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Security-Token=s&X-Amz-Signature=s": "https://h/a.jpg",
    "https://h/a.jpg?x-amz-signature=s&versionId=3L4kqtJlcpXroDTDmJ": "https://h/a.jpg?versionId=3L4kqtJlcpXroDTDmJ",
    "https://h/a.jpg?AWSAccessKeyId=AKIA&Signature=s%2Bs%3D&Expires=1900000000": "https://h/a.jpg",
    "https://h/a.jpg?Policy=eyJTd_&Signature=s~s_&Key-Pair-Id=K2": "https://h/a.jpg",
    "https://h/a.jpg?X-Goog-Algorithm=GOOG4&X-Goog-Signature=s": "https://h/a.jpg",
    "https://h/a.jpg?GoogleAccessId=a%40b.iam&Expires=1&Signature=s": "https://h/a.jpg",
    "https://h/a.jpg?sv=2024-11-04&ss=b&srt=o&st=2026-11-01&se=2027-01-01&sr=b&sp=r&spr=https&sip=1.2.3.4&sig=s%2Bq7%3D"
    "&snapshot=2026-11-01T00%3A00%3A00Z": "https://h/a.jpg?snapshot=2026-11-01T00%3A00%3A00Z",
    "https://h/a.jpg?skoid=1&sktid=2&skt=3&ske=4&sks=b&skv=5&sig=s": "https://h/a.jpg",
    "https://h/a.jpg?OSSAccessKeyId=L&Signature=s&w=300": "https://h/a.jpg?w=300",
    "https://h/a.jpg?q-sign-algorithm=sha1&q-ak=AK&q-sign-time=1;2&q-signature=s": "https://h/a.jpg",
    "https://h/a.jpg?md5=" + HEX[:32] + "&expires=1900000000": "https://h/a.jpg",
    "https://h/a.jpg?st=1700000000&e=1900000000&token=s&v=2": "https://h/a.jpg?v=2",
    "https://h/a.jpg?hdnts=st=1~exp=2~acl=/*~hmac=s": "https://h/a.jpg",
    "https://h/a.jpg?x=exp=2~hmac=s": "https://h/a.jpg",
    "https://h/a.jpg?rlkey=s&st=k3j4h5&dl=1": "https://h/a.jpg?dl=1",
    "https://h/a.jpg?ex=65f0a1b2&is=65dd2cb2&hm=" + HEX: "https://h/a.jpg",
    "https://h/a.jpg?x-expires=1700000000&x-signature=s": "https://h/a.jpg",
    "https://h/a.jpg?e=1900000000&h=" + HEX[:32] + "&p=7": "https://h/a.jpg?p=7",
    "https://h/a.jpg?t=xoxe-1234567890123-x&q=hf_abcdefghijklmnop": "https://h/a.jpg",
    "https://h/a.jpg?token=s&w=300&h=200": "https://h/a.jpg?w=300&h=200",
    "webhdfs://h/a.jpg?op=OPEN&delegation=s": "webhdfs://h/a.jpg?op=OPEN",
    # in paths
    "https://h/image/upload/s--AbCd1234--/v1/a.jpg": "https://h/image/upload/v1/a.jpg",
    "https://h/hdnea=exp=2~acl=/*~hmac=s/p/a.jpg": "https://h/p/a.jpg",
    "https://h/bcdn_token=s&expires=1/p/a.jpg": "https://h/p/a.jpg",
    "https://h/__token__=s/a.jpg": "https://h/a.jpg",
    "https://h/a.jpg;jsessionid=s?v=2": "https://h/a.jpg?v=2",
    "https://h/a.jpg%3Fsig%3Ds": "https://h/a.jpg",
    f"https://h/{JWT}/a.jpg": "https://h/a.jpg",
    # other names, notations and places
    "https://h/a.jpg?access_token=s": "https://h/a.jpg",
    "https://h/a.jpg?apikey=s&api_key=s&accessToken=s&X-Auth=s&authkey=s&pwd=s&jwt=s&sess=s&pass=s&mySig=s&code=s":
        "https://h/a.jpg",
    "https://h/a.jpg?TOKEN=s&v=2": "https://h/a.jpg?v=2",
    "https://h/a.jpg?%73ig=s&t%256Fken=s&v=2": "https://h/a.jpg?v=2",
    "https://h/a.jpg?v=2;sig=s": "https://h/a.jpg?v=2",
    "https://h/a.jpg?v=2?sig=s": "https://h/a.jpg?v=2",
    "https://h/a.jpg#access_token=s": "https://h/a.jpg",
    "https://h/a.jpg?v=2#page=3": "https://h/a.jpg?v=2#page=3",
    f"https://h/a.jpg?x={HEX}": "https://h/a.jpg",
    f"https://h/a.jpg?{BASE64}": "https://h/a.jpg",
    f"https://h/a.jpg?x={JWT}": "https://h/a.jpg",
    "https://h/a?url=https%3A%2F%2Fu%3Ap%40g%2Fb.jpg%3Fsig%3Ds%26v%3D2": "https://h/a?url=https%3A%2F%2Fg%2Fb.jpg%3Fv%3D2",
    "https://h/a?url=https://u:p@g/b.jpg": "https://h/a?url=https://g/b.jpg",
    "HTTPS://U:P@H/a.jpg?SIG=s": "HTTPS://H/a.jpg",
    # user and password
    "https://user:password@h:8080/a.jpg": "https://h:8080/a.jpg",
    "https://token@h/a.jpg": "https://h/a.jpg",
    "https://user:p@ss@h/a@b.jpg": "https://h/a@b.jpg",
    "s3://key:sec/ret@bucket/a@b.jpg": "s3://bucket/a@b.jpg",
    "s3://KEY:12/34@bucket/a.jpg": "s3://bucket/a.jpg",
    "https://user:cut-of": "https://user",
    "simplecache::https://h/a.jpg?sig=s": "simplecache::https://h/a.jpg",
    "zip://a@b.jpg::s3://key:secret@bucket/x.zip": "zip://a@b.jpg::s3://bucket/x.zip",
    "DefaultEndpointsProtocol=https;AccountName=n;AccountKey=s==": "DefaultEndpointsProtocol=https;AccountName=n;"
    "AccountKey=(hidden)",
}  # fmt: skip
UNCHANGED = [
    *(
        "what?.jpg",
        "a@b.jpg",
        "a#b.jpg",
        "/data/x:y@z/a?token=1.jpg",
        "~/a.jpg",
        "file:///data/a@b?sig=c.jpg",
        "C:\\a@b",
    ),
    *("s3://bucket/what?.jpg", "s3://bucket/a#1.jpg", "s3://bucket/key=5/code=US/a.jpg", "gs://b/a@b.jpg"),
    "s3://bucket/x?versionId=3sL4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo",
    "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/name/a@b.jpg",
    *("abfss://container@account.dfs.core.windows.net/a.jpg", "hf://datasets/user/repo@main/a.jpg"),
    *("github://org:repo@main/a.jpg", "memory://a@b/c.jpg", "http://[::1]:8080/a.jpg?v=1", "https://h:8080/a@b.jpg"),
    *("https://h/a.jpg?id=5", "https://h/a.jpg?v=2&w=300", "https://h/a?author=x&design=1&keyword=y&zipcode=2"),
    *(f"https://h/a?image={HEX}", f"https://h/{HEX}.jpg", "https://h/a?key=photos/1.jpg"),
    "https://h/a?photo=550e8400-e29b-41d4-a716-446655440000",
    *("https://h/a?file=IMG_20260102_123456_HDR.jpg", "https://h/a?at=20260102T123456Z", "https://h/a?&x=1&&y=2"),
]
TEXTS = {
    "403, message='Forbidden', url='http://h/a.jpg?sig=s'": "403, message='Forbidden', url='http://h/a.jpg'",
    "HTTPPool(host='h'): Max retries exceeded with url: /a.jpg?v=1&sig=s (Caused by E)": "HTTPPool(host='h'): Max "
    "retries exceeded with url: /a.jpg?v=1&sig=(hidden) (Caused by E)",
    'Invalid bucket name "key:secret@bucket": it must match': 'Invalid bucket name "(hidden)@bucket": it must match',
    "https://h/a?sig=s: does not exist; see (https://h/b?token=s).": "https://h/a: does not exist; see (https://h/b).",
    "cannot open https%3A%2F%2Fu%3Ap%40h%2Fa%3Fsig%3Ds": "cannot open https%3A%2F%2Fh%2Fa",
    "EndpointSuffix=x;AccountKey=s==;": "EndpointSuffix=x;AccountKey=(hidden);",
    "headers {'Authorization': 'Bearer abcdef123'}": "headers {'Authorization': '(hidden)'}",
    "token ghp_0123456789abcdefABCD is expired": "token (hidden) is expired",
    "Authorization: Basic dTpTRUNQVw==": "Authorization: Basic (hidden)",
    '{"key": "AK", "client_secret": "s", "anon": false}': '{"key": "AK", "client_secret": "(hidden)", "anon": false}',
    "Client(user='u', password='s')": "Client(user='u', password='(hidden)')",
    '{"inputs": ["https://h/a?sig=s", "s3://k:s@b/c"]}': '{"inputs": ["https://h/a", "s3://b/c"]}',
    "exit_code=3, key=5: a@b.c, 12 records = 3 chunks": "exit_code=3, key=5: a@b.c, 12 records = 3 chunks",
}


@pytest.mark.parametrize(("uri", "public"), REDACTED.items(), ids=range(len(REDACTED)))
def test_what_opens_a_uri_is_taken_out_and_what_names_it_stays(uri: str, public: str):
    assert redact(uri) == public
    assert redact(public) == public


@pytest.mark.parametrize("uri", UNCHANGED)
def test_uris_and_paths_without_secrets_are_not_changed(uri: str):
    assert redact(uri) == uri
    if "sig=" not in uri and "token=" not in uri:  # a request's path in a message is no more than a path
        assert redact_text(uri) == uri


@pytest.mark.parametrize(("text", "public"), TEXTS.items(), ids=range(len(TEXTS)))
def test_uris_and_credentials_within_text_are_redacted(text: str, public: str):
    assert redact_text(text) == public
    assert redact_text(public) == public


def test_an_object_on_the_web_is_recognized_by_its_path():
    assert without_query("https://h/a.tar?sig=a/b.jpg#c") == "https://h/a.tar"
    assert without_query("s3://b/what?.tar") == "s3://b/what?.tar"
    assert without_query("/data/what?.tar") == "/data/what?.tar"


def test_errors_are_redacted_where_they_are_made_before_they_are_cut():
    assert str(SpecError("https://u:p@h/a?sig=s: no")) == "https://h/a: no"
    failure = RecordFailure("read", "X", "s3://k:s@b/c")
    assert failure.message == "s3://b/c"
    with pytest.raises(SpecError) as e:
        JobSpec.create(inputs=["a"], format=["x" * 180 + " https://user:5ec0000@h/a.jpg"])
    assert "5ec" not in str(e.value)


def test_specs_are_stored_without_secrets_and_signing_again_is_no_other_training():
    job = JobSpec.create(inputs=["https://h/a.tar?sig=5ec"], output="s3://k:5ec@b/o", weights="https://h/w.pth?sig=5ec")
    assert "5ec" not in json.dumps(job.public())
    one, two = (TrainSpec.create(inputs=["i"], output="o", init=f"https://h/w.pth?sig={s}") for s in ("5ec1", "5ec2"))
    assert "5ec" not in json.dumps(one.public())
    assert one.decisive() == two.decisive()


def test_a_configuration_that_is_no_yaml_is_not_quoted(tmp_path: Path):
    path = tmp_path / "job.yaml"
    path.write_text('inputs: [a]\nstorage_options: {secret: "5ec0000\nx: [}')
    with pytest.raises(SpecError, match=r"not valid YAML: line \d") as e:
        read_config(path)
    assert "5ec" not in str(e.value)


def test_json_logs_are_redacted_from_whichever_library_they_come():
    record = logging.LogRecord("x", logging.INFO, "f", 1, "asked for %s", ("https://h/a?sig=5ec0000",), None)
    assert "https://h/a" in JsonFormatter({}).format(record)
    assert "5ec" not in JsonFormatter({}).format(record)


def test_a_defect_is_shown_without_the_secrets_in_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("asked for https://h/a?sig=5ec0000")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as stopped:
        cli.run_command()
    shown = capsys.readouterr().err
    assert stopped.value.code == 1
    assert "RuntimeError: asked for https://h/a\n" in shown
    assert "5ec" not in shown


# ---- a whole job


class _Signed(http.server.SimpleHTTPRequestHandler):
    """Answers requests that are signed; what is called ``late`` passes the look and fails when it is read."""

    def send_head(self) -> Any:
        signed = "5ec0000" in self.path or self.headers.get("Authorization", "").startswith("Basic ")
        if not signed or "denied" in self.path or ("late" in self.path and self.command == "GET"):
            self.send_error(403)
            return None
        return super().send_head()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def signed_server(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Signed, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def everything(output: Path) -> str:
    """All text in the files of an output, Parquet values included, and their names."""
    parts = []
    for path in sorted(p for p in output.rglob("*") if p.is_file()):
        parts.append(str(path.relative_to(output)))
        parts.append(path.read_bytes().decode("latin1"))
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            parts += [str(table.to_pylist()), str(table.schema.metadata)]
    return "\n".join(parts)


def rows(output: Path) -> dict[str, dict[str, Any]]:
    found = [row for f in sorted(output.glob("masks/*.parquet")) for row in pq.read_table(f).to_pylist()]
    assert len({r["image_id"] for r in found}) == len(found)
    return {r["image_id"]: r for r in found}


def write_web(folder: Path) -> None:
    folder.mkdir()
    for i, name in enumerate(("a.jpg", "b.jpg", "c.jpg", "denied.jpg", "late.jpg")):
        (folder / name).write_bytes(encode(photograph(i), "JPEG"))
    write_tar(folder / "t.tar", [(f"k{i}.jpg", encode(photograph(i), "JPEG")) for i in range(3)])
    pq.write_table(pa.table({"uri": ["a.jpg?sig=5ec0000r1", "b.jpg?sig=5ec0000r2"]}), folder / "list.parquet")
    (folder / "classes.txt").write_text("a\nb\n")


def manifest(path: Path, url: str, secret: str) -> str:
    """Seven images, signed each in its way; two of them by nothing but their signature different."""
    lines = [
        f"{url}/a.jpg?X-Amz-Credential=AK%2F2&X-Amz-Signature={secret}a",
        f"{url}/b.jpg?sv=1&se=2&sr=b&sig={secret}b%2Bq7%3D",
        f"{url}/c.jpg?v=2&token={secret}c~x_",
        f"{url}/gone.jpg?sig={secret}d",
        f"{url}/denied.jpg?sig={secret}e",
        f"{url}/a.jpg?X-Amz-Signature={secret}f",
        f"{url.replace('://', f'://reader:{secret}g@')}/b.jpg?v=3",
    ]
    path.write_text("".join(json.dumps({"uri": line}) + "\n" for line in lines))
    return str(path)


def test_a_job_over_signed_urls_reads_them_and_leaves_no_secret_anywhere(tmp_path: Path, caplog: Any):
    caplog.set_level(logging.INFO)
    write_web(tmp_path / "www")
    shown: list[str] = []
    with signed_server(tmp_path / "www") as url:
        for night in ("1", "2"):
            lines = manifest(tmp_path / "list.jsonl", url, f"5ec0000n{night}")
            outcome = here.run(here.spec([lines], tmp_path / night))
            assert (outcome.totals.records, outcome.totals.failed) == (7, 2)
        for name, ids in (("t.tar", ["t.tar/k0", "t.tar/k1", "t.tar/k2"]), ("c.jpg", ["c.jpg"])):
            output = tmp_path / f"of-{name}"
            for night in ("5ec0000n1", "5ec0000n2"):  # signed again, it is the same shard, and done
                outcome = here.run(here.spec([f"{url}/{name}?X-Amz-Credential=a/b&X-Amz-Signature={night}"], output))
            assert outcome.computed == 0
            assert list(rows(output)) == ids
        outcome = here.run(here.spec([f"{url}/list.parquet?sig=5ec0000"], tmp_path / "of-list"))
        assert list(rows(tmp_path / "of-list")) == ["list.parquet/a.jpg", "list.parquet/b.jpg"]
        assert outcome.totals.failed == 0
        for fields in (
            {"inputs": [f"{url}/denied.tar?sig=5ec0000"]},
            {"inputs": [f"{url}/late.jpg?sig=5ec0000", f"{url}/late.jpg?sig=5ec0000x"]},
            {"inputs": [f"simplecache::{url}/t.tar?sig=5ec0000"]},
            {"weights": f"{url}/late.jpg?sig=5ec0000", "model": "fcn8s"},
            {"classes": f"{url}/denied.txt?sig=5ec0000", "model": "null"},
            {"refiner_weights": f"{url}/late.jpg?sig=5ec0000", "refiner": "dpn"},
        ):
            with pytest.raises(SegbatchError) as e:
                here.run(here.spec(**{"inputs": [f"{url}/a.jpg?sig=5ec0000"], "output": tmp_path / "none", **fields}))
            shown.append(str(e.value))
        with pytest.raises(SpecError) as refused:
            read_config(f"{url}/late.jpg?sig=5ec0000")
        shown.append(str(refused.value))
    ids = [list(rows(tmp_path / night)) for night in ("1", "2")]
    assert ids[0] == ids[1], "ids do not depend on the signature"
    assert f"list.jsonl/{url}/c.jpg?v=2" in ids[0]
    assert all(re.search(r"(denied|late|t)\.", text) for text in shown), "each names what failed"
    files = [everything(path) for path in tmp_path.iterdir() if path.name != "www" and path.is_dir()]
    assert not re.findall("5ec0000.{0,9}", "\n".join([*files, *shown, caplog.text]))
