"""The methods, one a file, and the one fit loop they share."""
