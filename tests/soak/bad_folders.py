"""Mutations of the index and of the folder: an index that lies, links, folders and pipes where files are expected."""

import os
import shutil
from pathlib import Path
from typing import Any

from bayesian_transformer.checkpoint import INDEX_FILE, SINGLE_FILE
from tests.soak.mutation import (
    CONVERT,
    EMBEDDING,
    FIRST,
    LOAD,
    SECOND,
    VLLM,
    Change,
    Mutation,
    Q,
    accepted,
    content,
    index,
    json_file,
    linked,
    mapped,
    text,
    together,
)

_TEXTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "not valid JSON"),
    "not JSON": ("{", "not valid"),
    "a list": ("[]", "expected a JSON object"),
    "without a map": ('{"metadata": {}}', "weight_map"),
    "deep": ("[" * 200_000 + "]" * 200_000, "not valid JSON"),
    "with a tensor twice": (f'{{"weight_map": {{"{Q}": "{FIRST}", "{Q}": "{SECOND}"}}}}', f"'{Q}' occurs twice"),
    "in UTF-16": ('{"weight_map": {}}'.encode("utf-16"), "save the file as UTF-8"),
    "with a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
}
_NO_WEIGHTS = {VLLM: "vLLM says that it finds none, and runs no code in pickles"}
_NAMES: tuple[Any, ...] = (
    *("../model.safetensors", "/etc/passwd", "/etc/shadow.safetensors", "a/../" + FIRST, "sub/" + FIRST, "./" + FIRST),
    *("weights.bin", "config.json", "", ".", "..", "a\0.safetensors\0", 7, None, ["x"], {"a": 1}),
)
_NO_MAPS: tuple[Any, ...] = ([], {}, None, "x", 3)


def _index() -> list[Mutation]:
    return [
        *(Mutation(f"index {n}", text(INDEX_FILE, value), (INDEX_FILE, says)) for n, (value, says) in _TEXTS.items()),
        *(
            Mutation(f"index with {str(value)[:10]} for a map", index(weight_map=value), (INDEX_FILE, "weight_map"))
            for value in _NO_MAPS
        ),
        *(Mutation(f"index naming {name!r}", mapped(Q, name), (INDEX_FILE, Q)) for name in _NAMES),
        Mutation("index naming a missing file", mapped(Q, "model-9.safetensors"), ("model-9.safetensors", "missing")),
        Mutation(
            "index naming a file of 2,000 letters",
            mapped(Q, "x" * 2000 + ".safetensors"),
            ("File name too long",),
        ),
        Mutation("index with a tensor in another file", mapped(Q, SECOND), (SECOND, Q, "is missing")),
        Mutation("index with a tensor of no file", mapped("model.made.up", SECOND), (SECOND, "model.made.up")),
        Mutation(
            "index without a tensor",
            json_file(INDEX_FILE, lambda found: found["weight_map"].pop(Q)),
            accepted=accepted("the files that an index names are read whole, by transformers and vLLM as well"),
        ),
        Mutation("index without metadata", _without("metadata"), (INDEX_FILE, "metadata")),
        Mutation("index with a list for metadata", index(metadata=[]), (INDEX_FILE, "metadata")),
        Mutation(
            "index of a terabyte", lambda folder: os.truncate(folder / INDEX_FILE, 1 << 40), (INDEX_FILE, "bytes")
        ),
        Mutation("a tensor in two files", _in_two_files, (EMBEDDING, "model-00003", FIRST)),
        Mutation("no index", lambda folder: (folder / INDEX_FILE).unlink(), (INDEX_FILE, "missing")),
    ]


def _without(key: str) -> Change:
    return json_file(INDEX_FILE, lambda found: found.pop(key))


def _made(name: str) -> Change:
    return lambda folder: (folder / name).mkdir()


def _in_two_files(folder: Path) -> None:
    copy = folder / "model-00003-of-00003.safetensors"
    shutil.copyfile(folder / FIRST, copy)
    mapped(EMBEDDING, copy.name)(folder)


def _instead(name: str, make: Any) -> Change:
    """Put something else in place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


def _out_of_the_folder(folder: Path) -> None:
    """What a hub cache looks like: a link to a blob next to the snapshots."""
    blob = folder.parent / "blob"
    shutil.move(folder / FIRST, blob)
    (folder / FIRST).symlink_to(os.path.relpath(blob, folder))


def _no_weights(folder: Path) -> None:
    for path in (*folder.glob("*.safetensors"), folder / INDEX_FILE):
        path.unlink()


def _only_pickles(folder: Path) -> None:
    _no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")


def _places() -> list[Mutation]:
    broken = "broken link"
    return [
        *(Mutation(f"{n} is a folder", _instead(n, Path.mkdir), (n, "missing")) for n in (FIRST, INDEX_FILE)),
        *(Mutation(f"{n} is a pipe", _instead(n, os.mkfifo), (n, "missing")) for n in (FIRST, INDEX_FILE)),
        *(Mutation(f"{n} linked to nowhere", linked(n, "../../nowhere"), (n, broken)) for n in (FIRST, INDEX_FILE)),
        *(Mutation(f"{n} linked to itself", linked(n, n), (n, broken)) for n in (FIRST, INDEX_FILE)),
        *(Mutation(f"{n} linked in a circle", together(linked(n, "b"), linked("b", n)), (n, broken)) for n in (FIRST,)),
        *(
            Mutation(f"first shard linked to {device}", linked(FIRST, device), (FIRST, "missing"))
            for device in ("/dev/zero", "/dev/null", "/dev/urandom")
        ),
        Mutation("first shard linked to a text", linked(FIRST, "/etc/hostname"), (FIRST, "not a readable")),
        Mutation(
            "first shard linked out of the folder",
            _out_of_the_folder,
            accepted=accepted("a hub cache consists of such links, and they are followed by whatever loads it"),
        ),
        Mutation(
            "no weights", _no_weights, ("no model.safetensors",), stock={VLLM: "vLLM finds no weights"}, late=True
        ),
        Mutation(
            "only pickles",
            _only_pickles,
            ("pickled weights",),
            stock={VLLM: "vLLM finds no weights, as it is told to leave pickles alone"},
            late=True,
        ),
        *_two_choices(),
    ]


def _two_choices() -> list[Mutation]:
    """model.safetensors and an index side by side: transformers takes the former."""
    return [
        Mutation("model.safetensors beside the index, incomplete", _a_part, (Q, "is missing", "beside")),
        Mutation("model.safetensors beside the index, empty", text(SINGLE_FILE, ""), (SINGLE_FILE, "not a readable")),
        Mutation("model.safetensors beside the index, broken", linked(SINGLE_FILE, "x"), (SINGLE_FILE, "broken link")),
        Mutation(
            "model.safetensors beside the index, a folder",
            lambda folder: (folder / SINGLE_FILE).mkdir(),
            accepted=accepted("transformers takes the index then"),
        ),
        Mutation(
            "an index over model.safetensors and another file",
            together(lambda folder: (folder / FIRST).rename(folder / SINGLE_FILE), _renamed),
            ("is missing", "beside model.safetensors"),
        ),
        Mutation(
            "consolidated weights beside the index",
            lambda folder: shutil.copyfile(folder / FIRST, folder / "consolidated.00.safetensors"),
            ("consolidated.00.safetensors", "vLLM would read it"),
            accepted=accepted("transformers does not read them, and they are not converted", CONVERT, LOAD),
        ),
        Mutation(
            "an index that nobody reads any more",
            _saved_again,
            accepted=accepted("transformers reads model.safetensors alone, and vLLM is told to"),
        ),
    ]


def _renamed(folder: Path) -> None:
    """Let the index name model.safetensors where it named the first shard."""
    path = folder / INDEX_FILE
    path.write_text(path.read_text().replace(FIRST, SINGLE_FILE))


def _a_part(folder: Path) -> None:
    shutil.copyfile(folder / SECOND, folder / SINGLE_FILE)


def _saved_again(folder: Path) -> None:
    """Saved as one file over shards, as transformers does: the shards go, the index stays."""
    from safetensors.torch import load_file, save_file

    shards = sorted(folder.glob("*.safetensors"))
    save_file({n: t for shard in shards for n, t in load_file(shard).items()}, folder / SINGLE_FILE, {"format": "pt"})
    for shard in shards:
        shard.unlink()


def _carried() -> list[Mutation]:
    """What the conversion copies; the others do not read it all."""
    only = (CONVERT,)
    templates = "additional_chat_templates"
    tokenizer = "tokenizer.json"
    unread = accepted("a link to a folder is not copied, which a warning says", CONVERT)
    return [
        Mutation("tokenizer linked to nowhere", linked(tokenizer, "../../blobs/x"), (tokenizer, "broken"), stages=only),
        Mutation("tokenizer linked to itself", linked(tokenizer, tokenizer), (tokenizer, "broken"), stages=only),
        Mutation(
            "template linked to nowhere",
            together(_made(templates), linked(f"{templates}/tool.jinja", "../../blobs/x")),
            (f"{templates}/tool.jinja", "broken"),
            stages=only,
        ),
        Mutation("a link to the folder itself", linked("again", "."), accepted=unread, stages=only),
        Mutation("a link to the disk", linked("disk", "/"), accepted=unread, stages=only),
        Mutation("a pipe", lambda folder: os.mkfifo(folder / "pipe"),
                 accepted=accepted("what is no file is not copied, which a warning says", CONVERT), stages=only),
        Mutation(
            "an original folder with a broken link",
            together(_made("original"), text("original/x.pth", ""), linked("original/a", "x")),
            accepted=accepted("sub-folders with weights of their own are left out", CONVERT),
            stages=only,
        ),
        Mutation(
            "folders in folders",
            lambda folder: (folder / "/".join(["d"] * 200)).mkdir(parents=True),
            accepted=accepted("empty folders are nothing to copy", CONVERT),
            stages=only,
        ),
        Mutation("damaged tokenizer", content(lambda data: b"{", tokenizer),
                 accepted=accepted("the tokenizer is not read, and `tokur score` names what is wrong with it"),
                 stages=(CONVERT, LOAD)),
    ]  # fmt: skip


def folder_mutations() -> list[Mutation]:
    return [*_index(), *_places(), *_carried()]
