"""How gold rewards come about: rules, judgements, people's rankings, several scorers together."""
