"""What became of a zoo, told from its journal: a page, JSON, CSV and JUnit XML."""
