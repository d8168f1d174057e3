"""`python -m bayesian_transformer.heat_map`: the same as `tokur heatmap`."""

from .command import main

if __name__ == "__main__":
    main(prog_name="python -m bayesian_transformer.heat_map")
