"""Which value of a JSON answer is in doubt: the uncertainty of each by its path.

    python examples/json_fields.py [MODEL]

MODEL is a folder, by default that of the embedded model; a plain checkpoint is converted on the first run.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer.embedded import tfb_model
from bayesian_transformer.scoring import ScoringRequest, score_texts
from bayesian_transformer.spans import field_scores

path = tfb_model(*map(Path, sys.argv[1:]))
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
question = "Ada Lovelace was born in London in 1815. Give her name, place and year of birth, and shoe size as JSON."
answer = '{"name": "Ada Lovelace", "born": {"place": "London", "year": 1815}, "shoe_size": 43}'
request = ScoringRequest([{"role": "user", "content": question}], answer, seed=2)
(scored,) = score_texts(model, tokenizer, [request], num_samples=5)
if isinstance(scored, ValueError):
    raise scored
arrays = {"epistemic": scored.uncertainties.epistemic.tolist(), "logprob": scored.uncertainties.logprob.tolist()}
for field, found in field_scores(answer, scored.tokens, arrays).items():
    epistemic, logprob = found.quantities["epistemic"], found.quantities["logprob"]
    print(f"{field:13} {found.tokens} tokens  mean EU {epistemic['mean']:.4f}  lowest logprob {logprob['min']:8.4f}")
