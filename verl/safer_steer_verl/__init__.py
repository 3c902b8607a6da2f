"""SaFeR-Steer's layer on verl: Safety Tutor, agent loop, TCSR, group advantage, CPU platform (Stage III, Sec. 4.4)."""
