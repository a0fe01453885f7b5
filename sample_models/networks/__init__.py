"""The networks behind the sample models: written for them, with random weights."""
