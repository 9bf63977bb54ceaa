"""One file a way to run the members of a sweep: `launch(plan, members, options)` gets those that are to be run and
returns the exit code. It writes the plan (`plan.write`) once it knows that it can start; with `options.dry_run` it
starts and writes nothing, but may print what it would submit.
A launcher that trains in the process of the sweep has a `set_up()` too, called before JAX starts; for all others the
sweep leaves the accelerator alone."""
