"""The catalog: what exists. One TOML of facts and one module of paths for each dataset."""
