"""What a person chose to see in a manifest: label source, policy and split, kept in the footer of the image table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxrprep.collection.lineage import IMAGES_NAME
from cxrprep.errors import TableError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from cxrprep.events import Sink
    from cxrprep.labels.policy import Policy
    from cxrprep.labels.splits import SplitRule


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person chose to see in the manifest; ``None`` is the default of the dataset, and no policy or split."""

    label_source: str | None = None
    policy: Policy | None = None
    split_by: SplitRule | None = None
    source_is_new: bool = False

    def with_given(self, label_source: str | None, policy: Policy | None, split_by: SplitRule | None) -> Choices:
        """These, but for what is chosen anew."""
        rule = self.split_by if split_by is None else split_by.beside(self.split_by)
        return Choices(label_source or self.label_source, policy or self.policy, rule, bool(label_source))

    def described(self) -> dict[str, Any]:
        """As footers have them; what was not chosen is left out."""
        options_given = {
            "label_source": self.label_source,
            "policy": None if self.policy is None else self.policy.describe(),
            "split": None if self.split_by is None else self.split_by.describe(),
        }
        return {name: value for name, value in options_given.items() if value}

    def applied(self, images: pa.Table, origin: dict[str, Any], on_event: Sink) -> pa.Table:
        """The images divided and their labels changed as chosen; ``origin``, for the footer, is told of both."""
        from cxrprep.labels.policy import KEEP

        if self.split_by is not None:
            images, origin["split"] = self.split_by.apply(images, on_event), self.split_by.describe()
        if self.policy not in (None, KEEP):
            images, origin["policy"] = self.policy.apply(images), self.policy.describe()
        return images

    @classmethod
    def of_last(cls, manifests: Path) -> Choices:
        """Those by which the manifest there was made, as its footer says; the defaults where there is none."""
        from cxrprep.labels.policy import Policy
        from cxrprep.labels.splits import SplitRule
        from cxrprep.storage.parquet import read_footer

        path = manifests / IMAGES_NAME
        if not path.is_file():
            return cls()
        try:
            made_from = read_footer(path)
            policy, split = made_from.get("policy"), made_from.get("split")
            chosen = None if made_from.get("label_source_by_default") else made_from.get("label_source")
            return cls(
                chosen,
                None if policy is None else Policy.parse(**policy),
                None if split is None else SplitRule.described(split),
            )
        except (TableError, UsageError, KeyError, TypeError, ValueError):
            # A damaged manifest, or one of another time: it is about to be made again.
            return cls()


def shown_label_source(home: Path) -> str | None:
    """Whose labels the image table below ``home`` shows: ``""`` for none, ``None`` where there is no such table."""
    from cxrprep.storage.parquet import read_footer

    path = home / "manifests" / IMAGES_NAME
    return str(read_footer(path).get("label_source") or "") if path.is_file() else None
