"""`python -m bayesian_transformer.doctor`, the same as `tokur doctor`."""

from .command import main

main(prog_name="tokur doctor")
