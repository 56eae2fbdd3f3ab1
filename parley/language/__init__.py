"""Language: the command grammar and the understanding of plain language."""
