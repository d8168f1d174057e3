"""Tokenizers of the SentencePiece kind, as they are made for Llama 2 and its like, with a small vocabulary."""

from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

WORDS = ("▁The", "▁capital", "▁is", "▁Paris", "Paris")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Bytes, characters and WORDS with their beginnings; the merges that make the WORDS."""
    beginnings = [word[:size] for word in WORDS for size in range(2, len(word) + 1)]
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"▁TheacpitlsPr.[]/NSH24",
        *beginnings,
    ]
    merges = [(beginning[:-1], beginning[-1]) for beginning in beginnings]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, list(dict.fromkeys(merges))


def llama(**options: Any) -> PreTrainedTokenizerBase:
    """As transformers builds it for Llama 2, TinyLlama, Vicuna and their like."""
    tokens, merges = vocabulary()
    return LlamaTokenizer(vocab=tokens, merges=merges, **options)


def llama_file() -> PreTrainedTokenizerBase:
    """As the tokenizer.json of Llama 2 describes it: a normaliser adds the space, in front of other spaces too."""
    tokens, merges = vocabulary()
    backend = Tokenizer(BPE(vocab=tokens, merges=merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


def unigram() -> PreTrainedTokenizerBase:
    scores = [(token, -1.0 if token in WORDS else -20.0) for token in [*vocabulary()[0], "\n"]]
    backend = Tokenizer(Unigram(scores, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


MAKE = {"llama": llama, "llama legacy": lambda: llama(legacy=True), "llama file": llama_file, "unigram": unigram}
