"""Tables from runs: what was measured (measurements), intervals and tests (statistics), one table (comparison), its
forms (formats, plots); and a config's docstring against a run of it (expectations)."""
