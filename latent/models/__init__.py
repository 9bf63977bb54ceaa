"""Model families, one file each: `build(section, spec) -> Model`."""
