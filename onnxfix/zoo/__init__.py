"""Many models: a tree of them becomes a tree of converted and proven ones, with a record of what became of each."""
