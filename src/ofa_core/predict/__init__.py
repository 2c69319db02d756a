"""Every head for many rows: what a row must hold, the call for a batch, and files of answers that survive a kill."""
