"""A page that colours the tokens of two answers by their uncertainty: heat_map.html in the current folder.

    python examples/heat_map.py [MODEL]

MODEL is a folder, by default that of the embedded model; a plain checkpoint is converted on the first run.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer.embedded import tfb_model
from bayesian_transformer.heat_map import Response, write_report
from bayesian_transformer.scoring import ScoringRequest, score_texts

path = tfb_model(*map(Path, sys.argv[1:]))
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
question = "What is 7 * 6?"
answers = {"right": "The product of 7 and 6 is 42.", "wrong": "The product of 7 and 6 is 49."}
requests = [ScoringRequest([{"role": "user", "content": question}], answer, seed=2) for answer in answers.values()]
responses = []
for name, scored in zip(answers, score_texts(model, tokenizer, requests, num_samples=5), strict=True):
    if isinstance(scored, ValueError):  # a text that cannot be scored leaves the others alone
        raise scored
    values = vars(scored.uncertainties)
    responses.append(Response(name, scored.token_ids, scored.tokens, values, text=answers[name], prompt=question))
write_report(Path("heat_map.html"), responses, title=question)
print("wrote heat_map.html")
