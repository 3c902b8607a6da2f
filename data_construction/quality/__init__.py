"""What a generated dialogue must be: rules on its turns, its language, no refusal of the generator, no duplicate."""
