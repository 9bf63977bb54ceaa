"""Feature extractors that ship with the project: three LeNets, so that numbers on their features compare anywhere."""
