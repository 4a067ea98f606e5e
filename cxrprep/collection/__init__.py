"""A folder of any kind, opened one way: its record, what it came from, its files with digests, its image table.

A release as it was published, a folder of one's own, converted images as files or as shards, and exports are one thing
to every verb. ``open_folder`` says which of them a folder is.
"""

from cxrprep.collection.dataset_folder import DatasetFolder, open_folder
from cxrprep.collection.lineage import FolderKind, Lineage, ShardFile
from cxrprep.record.record import folder_words

__all__ = ["DatasetFolder", "FolderKind", "Lineage", "ShardFile", "folder_words", "open_folder"]
