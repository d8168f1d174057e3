"""A tokenizer of the SentencePiece kind, made on the spot."""

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def word_tokenizer(pieces: int) -> PreTrainedTokenizerBase:
    """`pieces` tokens: three special ones, then the words word0, word1 and so on, each with a space before it."""
    words = [*SPECIAL.values(), *(f"▁word{i}" for i in range(pieces - len(SPECIAL)))]
    backend = Tokenizer(Unigram([(word, -10.0) for word in words], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
