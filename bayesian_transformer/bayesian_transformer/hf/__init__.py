"""The transformers side: noisy projections, the forward of particle rows, generation with uncertainties.

Reading order: projections.py (which layers carry noise), noisy_forward.py (particle rows through the model's own
forward), generation.py (`generate` with uncertainties), limits.py (how long a text may be), loading.py (models for the
command lines), tokenizers.py (what AutoTokenizer must know). The classes themselves are in ../model.py and
../vllm_models/tfb_llama.py, whose names are published.
"""
