"""Host updates of tensor models, from the sums of a pass over the pixels."""
