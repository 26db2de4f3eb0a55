"""What is to be done on an analysis by a policy: a decision, with the rule, the numbers and a sentence."""
