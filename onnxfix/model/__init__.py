"""Files on disk: read without weights, seen as a graph, written whole or not at all."""
