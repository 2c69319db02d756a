"""Small files, each named after its noun, that know nothing of OFA."""
