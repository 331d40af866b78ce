"""factscore_mod: the share of supported claims in long-form generations, with evidence for each."""
