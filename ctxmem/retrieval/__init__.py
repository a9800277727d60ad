"""Search over documents and other texts: `library` keeps documents and finds them, `hybrid` searches any texts."""
