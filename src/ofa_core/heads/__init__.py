"""What turns tokens into answers, one file per head."""
