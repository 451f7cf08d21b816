"""The Hub: fetching model folders, writing their cards, publishing them. This package knows files, not networks."""
