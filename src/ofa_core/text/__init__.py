"""Text: byte-level BPE, the id layout of OFA's vocabulary, the tokenizer over both, and text normalisation."""

from ofa_core.text.bpe import ByteLevelBPE
from ofa_core.text.normalize import pre_caption, pre_question
from ofa_core.text.tokenizer import Tokenizer, small_vocabulary_dir
from ofa_core.text.vocabulary import Vocabulary

__all__ = ["ByteLevelBPE", "Tokenizer", "Vocabulary", "pre_caption", "pre_question", "small_vocabulary_dir"]
