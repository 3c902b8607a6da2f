"""The rehearsal: what a run that takes days would meet, met in minutes on the machine that will run it."""
