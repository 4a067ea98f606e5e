"""Images: decoding, grey scale, transforms, recipes, encoding, conversion, shards."""
