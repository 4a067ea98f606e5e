"""Selection: which files, images and rows are wanted, by globs, ids, splits, views, labels and samples."""
