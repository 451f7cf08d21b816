"""The Hub: fetching model folders, describing them with a card, publishing them. Knows files, not networks."""
