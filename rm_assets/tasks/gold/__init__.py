"""Where gold rewards come from: one file a kind of gold, each labelling the responses that it is given."""
