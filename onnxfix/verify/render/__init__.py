"""A verification told: to test runners (JUnit), in Markdown, as a page, and the words that all of them share."""
