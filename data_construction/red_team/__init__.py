"""Strong red-team (Eq. 10-11, App. F): M1 forensics, M2 intent, M3 plan, M4 simulation with a success filter."""
