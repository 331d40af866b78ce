"""Generation backends: what turns prompts into answers."""
