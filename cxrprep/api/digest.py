"""The verbs about the digest of a training set: ``digest`` computes it, ``prove`` checks a folder or an image by it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cxrprep.api.buckets import takes_buckets
from cxrprep.api.export import load
from cxrprep.api.result import Result
from cxrprep.errors import ExitCode, UsageError, storage_errors
from cxrprep.events import Sink, ignore
from cxrprep.humanize import format_count
from cxrprep.manifest.set_digest import PIXELS_NAME, Proof, SetDigest, set_digest
from cxrprep.model import FolderRef
from cxrprep.storage.paths import CACHE_NAME
from cxrprep.storage.small_files import parse_json, read_text


@takes_buckets(root="read-folder", state="read-folder")
def digest(
    root: Path | str | FolderRef, *, state: Path | str | None = None, on_event: Sink = ignore, **options: Any
) -> Result[SetDigest]:
    """The digest that names the training set in ROOT: 64 hexadecimal digits over what a model sees of it.

    Args:
        root: A folder with a manifest: a release, converted images, or shards of them.
        state: Where the manifest is when it is not below ROOT.
        on_event: Called with progress over the images that are read.
        **options: Dataset, label source, policy, observations, text, split and selection, as ``cxrprep.load`` takes
            them.

    Returns:
        The digest with its head, which names vocabulary, policy, and size and root of each split.

    Raises:
        UsageError: The folder has no manifest, or an option names nothing.
        ImageError: An image cannot be read.
        NothingSelectedError: No image is left.

    Examples:
        >>> import cxrprep
        >>> len(cxrprep.digest("nih", split="test").value.value)
        64
    """
    found = _digest_of(FolderRef.of(root, state=state), on_event, options)
    splits = found.head["splits"].items()
    counts = ((f"split {name or 'none'}", format_count(about["images"], "image")) for name, about in splits)
    rows = (("digest", found.value), *counts)
    data = {"digest": found.value, "head": found.head, "unread": found.unread}
    return Result("digest", found, rows=rows, data=data)


@takes_buckets(root="read-folder", state="read-folder", out="written-file", proof="read-file")
def prove(
    digest: str,
    root: Path | str | FolderRef | None = None,
    *,
    image: str | None = None,
    proof: Path | str | None = None,
    out: Path | str | None = None,
    state: Path | str | None = None,
    on_event: Sink = ignore,
    **options: Any,
) -> Result[Proof | SetDigest]:
    """Whether the training set in ROOT has this digest, or an image is in the set that has it.

    Args:
        digest: The 64 digits.
        root: The folder; ``None`` where ``proof`` alone is checked.
        image: The id of an image, of which a proof is made (a Merkle path: some 20 hashes for 400,000 images).
        proof: A file that such a proof was written to; it is checked without any image.
        out: Where the proof is written.
        state: Where the manifest is when it is not below ROOT.
        on_event: As ``digest`` calls it.
        **options: As ``digest`` takes them.

    Returns:
        The exit code is 0 when it holds, and 4 when it does not.

    Raises:
        UsageError: The digest has another form, the image is not in the set, or neither folder nor proof is named.
        StorageError: The proof cannot be read or written.

    Examples:
        >>> import cxrprep
        >>> name = cxrprep.digest("nih").value.value
        >>> cxrprep.prove(name, "nih").exit_code.name
        'DONE'
    """
    wanted = digest.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        raise UsageError(
            f"{digest!r} is not a digest", hint="64 hexadecimal digits, as cxrprep digest ROOT prints them"
        )
    if proof is not None:
        return _checked(wanted, Path(proof))
    if root is None:
        raise UsageError("which folder?", hint="name it, or a proof of one image with --proof FILE")
    found = _digest_of(FolderRef.of(root, state=state), on_event, options, image)
    holds = found.value == wanted
    rows: list[tuple[str, Any]] = [("digest", found.value), ("expected", wanted)]
    data: dict[str, Any] = {"digest": found.value, "expected": wanted, "holds": holds, "unread": found.unread}
    if image is not None and holds:
        from cxrprep.storage.atomic import refuse_over_others
        from cxrprep.storage.table_checksums import replace_listed

        made = found.proof
        if made is None:
            raise UsageError(f"no image {image!r} is in this set", hint="name an image_id of its manifest")
        data["proof"] = made.as_json()
        rows += [("image", image), ("split", made.split or "none"), ("hashes", len(made.path))]
        if out is not None:
            place, text = Path(out), json.dumps(made.as_json(), indent=1, sort_keys=True) + "\n"
            refuse_over_others(place, lambda head: head.startswith(b"{") and b'"format"' in head, "proof", "--out")
            replace_listed(place, lambda part: part.write_text(text, encoding="utf-8"))
            rows.append(("written", str(out)))
    return Result("prove", found, _code(holds), rows=tuple(rows), data=data)


def _digest_of(where: FolderRef, on_event: Sink, options: dict[str, Any], image: str | None = None) -> SetDigest:
    dataset = load(where, on_event=on_event, **options)
    return set_digest(dataset, cache=where.home / CACHE_NAME / PIXELS_NAME, image=image, on_event=on_event)


def _checked(wanted: str, path: Path) -> Result[Proof | SetDigest]:
    try:
        with storage_errors(path, "read"):
            made = Proof.of_json(parse_json(read_text(path)))
        holds, about = made.holds(wanted), dict(parse_json(made.leaf))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(
            f"{path} is no proof of a training set", hint="make one: cxrprep prove DIGEST ROOT --image ID --out FILE"
        ) from error
    rows = (("image", about.get("id", "")), ("split", made.split or "none"), ("of", format_count(made.size, "image")))
    return Result("prove", made, _code(holds), rows=rows, data={"expected": wanted, "holds": holds, "leaf": about})


def _code(holds: bool) -> ExitCode:
    return ExitCode.DONE if holds else ExitCode.INTEGRITY
