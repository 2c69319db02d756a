"""The published layouts of rows, one file a data set, and the table of them all."""
