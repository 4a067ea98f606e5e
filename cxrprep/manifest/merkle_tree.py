"""Merkle trees of RFC 9162, section 2.1: a root over hashes, and the path that proves that one of them is below it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class GrowingTree:
    """A tree whose leaves come one after another: of any size some sixty hashes are held.

    Two whole trees of one size become one: the same tree as the RFC's division by powers of two.
    """

    def __init__(self) -> None:
        """No leaf yet."""
        self.count = 0
        self.index = -1
        self._roots: list[bytes] = []
        # Which of the roots has the leaf of which a proof is made below it, and the hashes beside its way up to there.
        self._proven = -1
        self._beside: list[bytes] = []

    def add(self, leaf: bytes, *, proven: bool = False) -> None:
        """The hash of the next leaf; of one leaf, whose place is ``index``, a proof can be made afterwards."""
        if proven:
            self.index, self._proven = self.count, len(self._roots)
        self.count += 1
        place = self.count
        while not place & 1:
            left = self._roots.pop()
            self._proven = _noted(self._beside, self._proven, len(self._roots), left, leaf)
            leaf, place = _node_hash(left, leaf), place >> 1
        self._roots.append(leaf)

    def root(self) -> bytes:
        """The root over all that came."""
        return self._closed()[0]

    def inclusion_path(self) -> list[bytes]:
        """The hashes beside the way from the leaf that is proven to the root."""
        return self._closed()[1]

    def _closed(self) -> tuple[bytes, list[bytes]]:
        path, proven = list(self._beside), self._proven
        found = self._roots[-1] if self._roots else hashlib.sha256().digest()
        for place in reversed(range(len(self._roots) - 1)):
            left = self._roots[place]
            proven = _noted(path, proven, place, left, found)
            found = _node_hash(left, found)
        return found, path


def _noted(path: list[bytes], proven: int, place: int, left: bytes, right: bytes) -> int:
    """Two neighbours become one at ``place``: what stands beside the proven one is noted; where that is from now on."""
    if proven in (place, place + 1):
        path.append(right if proven == place else left)
        return place
    return proven


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[str]) -> bytes | None:
    """The root that a path leads to, by RFC 9162, section 2.1.3.2; ``None`` for a path that does not fit.

    Args:
        leaf: the leaf's hash.
        index: its place among all leaves, from 0.
        size: how many leaves there are.
        path: the hashes beside the way, hexadecimal, as of ``GrowingTree.inclusion_path``.

    Returns:
        The root's hash of 32 bytes.
    """
    if not 0 <= index < size:
        return None
    place, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return None
        beside = bytes.fromhex(step)
        if place & 1 or place == last:
            found = _node_hash(beside, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = _node_hash(found, beside)
        place, last = place >> 1, last >> 1
    return found if last == 0 else None
