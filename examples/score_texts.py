"""Uncertainties of answers that exist already: what decoding them would have given.

    python examples/score_texts.py [MODEL]

MODEL is a folder, by default that of the embedded model; a plain checkpoint is converted on the first run.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer.embedded import tfb_model
from bayesian_transformer.scoring import ScoringRequest, score_texts

path = tfb_model(*map(Path, sys.argv[1:]))
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
chat = [{"role": "user", "content": "What is 7 * 6?"}]
answers = ["The product of 7 and 6 is 42.", "The product of 7 and 6 is 49."]
requests = [ScoringRequest(chat, answer, seed=2) for answer in answers]
for scored in score_texts(model, tokenizer, requests, num_samples=5):
    if isinstance(scored, ValueError):  # a text that cannot be scored leaves the others alone
        raise scored
    values = scored.uncertainties  # eight float32 tensors [tokens]
    rows = zip(scored.tokens, values.epistemic.tolist(), values.logprob.tolist(), strict=True)
    for token, epistemic, logprob in rows:
        print(f"{token!r:10} EU {epistemic:.4f} logprob {logprob:8.4f}")
    print(f"sum of {len(scored.tokens)} tokens: EU {values.epistemic.sum():.4f} logprob {values.logprob.sum():.4f}")
