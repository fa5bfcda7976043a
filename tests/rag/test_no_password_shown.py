"""The password of `rag.url` is shown nowhere, however the URL is mistyped: not printed, not logged, not stored."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy_tasks import Doubled, make_run

from pipeline.commands import agglomerate, status
from pipeline.config import RagConfig, dump_config, load_config
from pipeline.engine.blocks.stage import BlockFunction
from pipeline.engine.chain import run_stages
from pipeline.engine.tracking.worker_spec import WorkerSpec
from pipeline.errors import UserError
from pipeline.rag import mongo, open_rag, password_in_environment
from pipeline.rag.__main__ import main as rag_main
from pipeline.run import Run, update_summary

SECRET = "Xy7Secret9zQ"
WITHOUT_URL = {
    "volumes": {"sources": {"toy": {"kind": "phantom"}}, "segment": {"source": "toy"}},
    "student": {"network": {"name": "section_unet"}, "distillation": None},
}
SCHEMES = ["postgresql", "postgres", "mongodb", "mongodb+srv", "oracle", "Postgresql", " postgresql", "postgresql ", ""]
SEPARATORS = ["://", ":/", ":", "//", ":///", "::/", ":\\\\", ":// ", " ", ""]
PASSWORDS = [
    "{}",
    "/{}",
    "{}/",
    "?{}",
    "{}?x",
    "#{}",
    "{}@",
    "@{}",
    ":{}",
    "{}:1",
    " {}",
    "{}\t",
    "{}&a=b",
    "a=b&{}",
    "%{}",
]
PASSWORDS += ["[{}", "{}]", "{},h", "{}%", "a/b?c#d@{}", "{}=", "\u00e4{}"]
PLACES = [
    "{user}:{password}@{host}",
    "{user}:{password}{host}",
    "{user}@{host}:{password}",
    "{user}@{host}?password={password}",
    "{user}@{host}&password={password}",
    "{user}@{host}?sslpassword={password}",
    "{host}?user={user}&tlsCertificateKeyFilePassword={password}",
    ":{password}@{host}",
    "{user};{password}@{host}",
    "{user}:{password}@@{host}",
    "host=h user={user} password={password}",
]
HOSTS = ["h/d", "h:5432/d?schema=a", "h:port/d", "h1:1,h2:2/d", "[::1]:1/d", "127.0.0.1:1/d", "h", "/d", ""]


def malformed_urls(count: int = 200, seed: int = 21) -> list[str]:
    """Servers' URLs with mistakes, each with the secret somewhere; and the eleven that were once tried by hand."""
    draw, urls = random.Random(seed), {f"postgresql:/user:{SECRET}@host"}
    while len(urls) < count:
        password = draw.choice(PASSWORDS).format(SECRET)
        place = draw.choice(PLACES).format(
            user=draw.choice(["u", "me%40x", ""]), password=password, host=draw.choice(HOSTS)
        )
        urls.add(draw.choice(SCHEMES) + draw.choice(SEPARATORS) + place)
    return sorted(urls)


@dataclass(frozen=True)
class Peeking(Doubled):
    """Notes what all processes of this machine were started with, as far as they let others know."""

    @contextmanager
    def process(self) -> Iterator[BlockFunction]:
        seen = [*Path("/proc").glob("[0-9]*/cmdline"), *(Path("/proc") / name / "environ" for name in self._here())]
        for number, path in enumerate(seen):
            with suppress(OSError):
                (self.run.directory / "seen" / str(number)).write_bytes(path.read_bytes())
        with super().process() as process_block:
            yield process_block

    @staticmethod
    def _here() -> tuple[str, str]:
        """The worker and its driver."""
        return str(os.getpid()), str(os.getppid())


mistyped = pytest.mark.parametrize("url", malformed_urls(), ids=range(200))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory for all of them; none may leave its secret there."""
    made = tmp_path_factory.mktemp("shown")
    make_run(made / "run")
    return made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that names this machine by mistake may lead to where no server answers."""
    monkeypatch.setattr(mongo, "SERVER_SELECTION_MS", 100)


def everything_in(directory: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in directory.rglob("*") if path.is_file())


@mistyped
@pytest.mark.usefixtures("impatient")
def test_a_mistyped_url_is_refused_without_its_password(
    url: str, directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = directory / "config.json"
    run = Run(load_config({**WITHOUT_URL, "run_directory": str(directory / "run"), "rag": {"url": url}}))
    run.save_config()
    update_summary(run, note={})
    WorkerSpec.of_task(Doubled(run), "127.0.0.1", 1, "other").save(run.tracking / "worker.json")
    config.write_text(json.dumps({**dump_config(run.config), "rag": {"url": url}}))
    saved = str(run.directory / "config.json")
    for main, arguments in (
        (agglomerate.main, [str(config), "--dry-run"]),
        (status.main, [saved, "--set", f"rag.url={url}"]),
    ):
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        with pytest.raises(SystemExit):
            main()
    rag_main(["counts", url])
    for mistake in ({"rag": url}, {"rag": {"url": [url]}}, {"rag": {url: 1}}):
        with pytest.raises(UserError) as refused:
            load_config({**dump_config(run.config), **mistake})
        assert SECRET not in str(refused.value)
    with pytest.raises(UserError) as refused:
        open_rag(url, directory)
    assert SECRET not in f"{refused.value} {refused.value!r} {run.config!r}"
    told = capfd.readouterr()
    assert SECRET not in told.out + told.err
    assert SECRET not in everything_in(run.directory)


@mistyped
def test_what_is_shown_is_shown_again_in_the_same_way(url: str) -> None:
    """A config that was saved is read and saved again."""
    shown = RagConfig(url=url).shown
    assert SECRET not in shown
    assert RagConfig(url=shown).shown == shown


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows the environment of processes")
@pytest.mark.parametrize("url", [f"postgresql:/user:{SECRET}@host", f"postgresql://user:a/{SECRET}@host/d"], ids=[1, 2])
def test_no_process_is_given_the_password_of_a_mistyped_url(url: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, rag={"url": url}, cluster={"executor": "local", "workers": 1})
    seen = tmp_path / "seen"
    seen.mkdir()
    assert run_stages(run, [Peeking(run)], False)
    texts = [path.read_bytes() for path in seen.iterdir()]
    assert texts
    assert not any(SECRET.encode() in text for text in texts)
    assert SECRET not in everything_in(tmp_path)


def test_a_password_that_is_understood_travels_in_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMDISTILL_RAG_PASSWORD", raising=False)
    with password_in_environment(f"postgresql://user:a%2F{SECRET}@host/d"):
        assert os.environ["EMDISTILL_RAG_PASSWORD"] == f"a/{SECRET}"
    assert "EMDISTILL_RAG_PASSWORD" not in os.environ
