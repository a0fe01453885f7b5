"""What a runtime reads beside a model: which ports it names, and how that follows a conversion."""
