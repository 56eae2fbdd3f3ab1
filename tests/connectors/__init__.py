"""Each platform's own ways, beside the contract that all of them keep."""
