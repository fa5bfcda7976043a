"""docs/API.md, generated from signatures and docstrings so that it cannot disagree with them: `make docs`."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pipeline
from pipeline.terminal import write_document

INTRODUCTION = """\
# From Python

Everything that the scripts do, as functions: `from pipeline import open_run, predict, …`. A function imports
what it needs when it is called. A mistake that you can mend is a `UserError` of one line.
`logging.basicConfig(level=logging.INFO)` shows how far it is. A script that trains needs
`if __name__ == "__main__":` around its calls, since the processes that prepare batches import it.

The second part lists the losses, algorithms and scores, which work on tensors and arrays alone.
This page is generated: `make docs`.
"""

PARTS = {
    "pipeline.distillation": [
        "embedding_affinities",
        "instance_nodes",
        "InstanceGraphLoss",
        "AffinityGraphLoss",
        "MemoryBank",
        "InterImageGraphLoss",
        "GraphFlowLoss",
        "Paraphraser",
        "LogitsLoss",
        "AdversarialLoss",
        "GraphRelationDistillation",
    ],
    "pipeline.networks": ["build_network"],
    "pipeline.segmentation": [
        "seeded_watershed",
        "region_graph",
        "agglomerate_global",
        "agglomerate_waterz",
        "FragmentClasses",
    ],
    "pipeline.evaluation": ["variation_of_information", "adapted_rand_error", "expected_run_length", "score_volumes"],
    "pipeline.rag": ["open_rag"],
    "pipeline.config": ["load_config"],
}
"""What can be used by itself, by package."""

STEPS = [
    "open_run",
    "import_data",
    "train_teacher",
    "train_paraphraser",
    "distill",
    "predict",
    "extract_fragments",
    "agglomerate",
    "segment",
    "segmentations",
    "evaluate",
    "write_report",
    "view",
    "export",
    "run_all",
    "Run",
    "UserError",
]
"""Names of `pipeline`, in the order of work."""

HOOKS = {"get_extra_state", "set_extra_state"}
"""Methods that torch calls."""
WIDTH = 110
SECTION = re.compile(r"^(Args|Returns|Raises|Attributes):$")
ENTRY = re.compile(r"^([\w*, ]+): (.*)$")


def api_reference() -> str:
    """The Markdown text of docs/API.md."""
    parts = [INTRODUCTION, "## The steps: `pipeline`\n"]
    parts += [_chapter(name, getattr(pipeline, name)) for name in STEPS]
    for package, names in PARTS.items():
        module = import_module(package)
        parts.append(f"## `{package}`\n")
        parts.append(_wrapped(inspect.getdoc(module) or "") + "\n")
        parts += [_chapter(name, getattr(module, name)) for name in names]
    return "\n".join(parts)


def _chapter(name: str, thing: Any) -> str:
    """A heading, the signature, the docstring, and the methods of a class."""
    lines = [f"### {name}", "", "```python", _signature(name, thing), "```", ""]
    lines += _markdown(inspect.getdoc(thing) or "")
    members = list(_members(thing)) if inspect.isclass(thing) else []
    if members:
        lines += ["", "*Members:*", "", *members]
    return "\n".join(lines) + "\n"


def _signature(name: str, thing: Callable[..., Any]) -> str:
    """`name(...) -> ...`; one parameter per line where they do not fit in one."""
    signature = inspect.signature(thing)
    result = "" if inspect.isclass(thing) else f" -> {signature.return_annotation}"
    parameters: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        parameters.append(re.sub(r"^([*\w]+): '(.*?)'", r"\1: \2", str(parameter)))  # annotations are kept as text
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {parameter}," for parameter in parameters), f"){result}"])


def _markdown(docstring: str) -> Iterator[str]:
    """A docstring's paragraphs, and its sections as lists."""
    first = True
    for paragraph in docstring.split("\n\n"):
        title, _, body = paragraph.partition("\n")
        if not first:
            yield ""
        first = False
        if SECTION.match(title):
            yield from (f"*{title}*", "", *_items(textwrap.dedent(body), has_names=title != "Returns:"))
        else:
            yield _wrapped(paragraph)


def _items(body: str, has_names: bool) -> Iterator[str]:
    """The entries of a section; lines further in continue the entry before."""
    if not has_names:
        yield _wrapped(body)
        return
    for entry in re.split(r"\n(?=\S)", body):
        named = ENTRY.match(" ".join(entry.split()))
        text = f"`{named[1]}`: {named[2]}" if named else " ".join(entry.split())
        yield _wrapped(text, "- ")


def _members(thing: type) -> Iterator[str]:
    """The public methods and properties that the class itself has: the first sentence of each."""
    for name, member in vars(thing).items():
        if name.startswith("_") or name in HOOKS or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        sentence = " ".join((inspect.getdoc(member) or "").split("\n\n")[0].split())
        shown = f"{name}({', '.join(list(inspect.signature(member).parameters)[1:])})" if callable(member) else name
        if sentence:
            yield _wrapped(f"`.{shown}`: {sentence}", "- ")


def _wrapped(text: str, bullet: str = "") -> str:
    """Text in lines of `WIDTH`; asterisks, which would make it slanted, are escaped outside code."""
    pieces = text.split("`")
    pieces[::2] = [piece.replace("*", r"\*") for piece in pieces[::2]]
    return textwrap.fill(
        " ".join("`".join(pieces).split()),
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    write_document(api_reference())
