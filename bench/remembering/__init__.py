"""Long chats with questions whose evidence is known, and what different memories bring back of it."""
