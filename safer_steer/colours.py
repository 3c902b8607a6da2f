"""Colours of lines in figures."""

# Okabe and Ito's, told apart by colour-blind readers too.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
