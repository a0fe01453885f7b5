"""The families of sample models: what is exported from one network, and how its exports are held together."""
