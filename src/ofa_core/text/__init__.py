"""Text: byte-level BPE, the id layout of OFA's vocabulary, the tokenizer over both, and text normalisation."""

from .bpe import ByteLevelBPE
from .normalize import pre_caption, pre_question
from .tokenizer import Tokenizer, small_vocabulary_dir
from .vocabulary import Vocabulary

__all__ = ["ByteLevelBPE", "Tokenizer", "Vocabulary", "pre_caption", "pre_question", "small_vocabulary_dir"]
